"""Download a large file from the first of several hosts that delivers it.

pooch does the transfer, the hash check and the rename of a finished file; this module tries the hosts in order and
gives up on slow ones.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm

from scripts.system.errors import InputError


class StalledError(Exception):
    """The transfer is too slow."""


class EndlessError(Exception):
    """The host sends more than the largest possible file."""


class _Watch(tqdm):
    """A progress bar that stops the transfer below ``slowest`` bytes a second in the last ``window`` seconds.

    It also stops after ``largest`` bytes.
    """

    def __init__(self, host: str, slowest: float, window: float, largest: float) -> None:
        super().__init__(total=1, unit="B", unit_scale=True, desc=host, leave=False, disable=None)
        # total is 1 until the length is known: pooch ignores a bar that is false
        self.slowest, self.window, self.largest = slowest, window, largest
        self.since, self.received, self.whole = time.monotonic(), 0, 0

    def update(self, n: float | None = 1) -> bool | None:
        self.received += int(n or 0)
        self.whole += int(n or 0)
        if self.whole > self.largest:
            raise EndlessError
        elapsed = time.monotonic() - self.since
        if elapsed > self.window:
            if self.received < self.slowest * elapsed:
                raise StalledError(f"{self.received / elapsed / 1e3:.0f} kB/s")
            self.since, self.received = time.monotonic(), 0
        return super().update(n)

    def reset(self, total: float | None = None) -> None:
        self.whole = 0  # pooch counts the whole file again at the end
        super().reset(total)


def fetch(
    urls: Sequence[str],
    md5: str,
    target: Path,
    *,
    connect_seconds: float = 5.0,
    stall_seconds: float = 10.0,
    slowest: float = 200e3,
    largest: float = 1e9,
) -> Path:
    """Download ``target`` from the first of ``urls`` that delivers the file with this MD5.

    Args:
        urls: Addresses of the same file, best first. The last host may be slow.
        md5: The MD5 of the file.
        target: The path of the file; it appears only once it is complete and its hash is right.
        connect_seconds: How long a host may take to answer.
        stall_seconds: How long a host may send nothing, and the window in which ``slowest`` is measured.
        slowest: Bytes a second below which the next host is tried.
        largest: Bytes above which the next host is tried: this one sends another file.

    Raises:
        InputError: If the file cannot be written, or if no host delivers it; the message names each and its failure.
    """
    failures = []
    for url in urls:
        host = urlsplit(url).netloc
        watch = _Watch(host, 0 if url == urls[-1] else slowest, stall_seconds, largest)
        loader = pooch.HTTPDownloader(progressbar=watch, timeout=(connect_seconds, stall_seconds))
        pooch.get_logger().setLevel("WARNING")
        try:
            pooch.retrieve(url, f"md5:{md5}", fname=target.name, path=target.parent, downloader=loader)
            return target
        except StalledError as error:
            failures.append(f"{host} too slow ({error})")
        except EndlessError:
            failures.append(f"{host} sent more than {largest / 1e6:.0f} MB")
        except requests.exceptions.HTTPError as error:
            failures.append(f"{host} answered {getattr(error.response, 'status_code', 'with an error')}")
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
            failures.append(f"{host} broke off")
        except requests.exceptions.RequestException as error:
            timed_out = "Read timed out" in str(error)  # in the body, requests calls a time-out a ConnectionError
            failures.append(f"{host} stalled" if timed_out else f"{host} not reached ({type(error).__name__})")
        except OSError as error:  # requests' errors, above, are OSErrors too; pooch drops strerror of EACCES
            reason = f"{target.parent} cannot be written ({error.strerror or 'Permission denied'})"
            raise InputError(f"download of {target.name} failed: {reason}") from error
        except ValueError:  # pooch's error for a wrong hash
            failures.append(f"{host} sent another file (MD5 is not {md5})")
        finally:
            watch.close()
    raise InputError(f"download of {target.name} failed: {'; '.join(failures)}")
