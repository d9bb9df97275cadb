"""A real HTTP server on loopback that can misbehave."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scripts.data import datasets


@contextmanager
def serving(content: bytes) -> Iterator[str]:
    """Serve ``content`` under /good, and spoil it under /truncated, /wrong, /stalled, /crawling, /missing.

    Yields the address without a slash at the end.
    """
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind = self.path.strip("/").split("/")[0]
            if kind == "missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            if kind == "good":
                self.wfile.write(content)
            elif kind == "wrong":
                self.wfile.write(content[::-1])
            elif kind == "truncated":
                self.wfile.write(content[:half])
            elif kind == "stalled":
                self.wfile.write(content[:half])
                stop.wait(10)
            elif kind == "crawling":
                for start in range(0, len(content), 1024):
                    if stop.is_set():
                        return
                    self.wfile.write(content[start : start + 1024])
                    time.sleep(0.02)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients hang up on a host that misbehaves
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        stop.set()
        server.shutdown()
        thread.join()
        server.server_close()


def refused() -> str:
    """The address of a closed port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_port}"


def go_offline(patch: pytest.MonkeyPatch) -> None:
    """No CIFAR-10 at hand, and no host to download it from."""
    patch.delenv("CIFAR10_DIR", raising=False)
    patch.setenv("NO_PROXY", "127.0.0.1")
    patch.setattr(datasets, "CIFAR10_MIRRORS", (f"{refused()}/a", f"{refused()}/b"))
