"""Two trees timed in turn on the same machine."""
