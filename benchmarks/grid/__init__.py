"""The benchmark cells of `make bench`, and which of them a machine runs."""
