"""The benchmark cells, and which of them a machine runs."""
