"""Other libraries do the same work, and compute the same numbers."""
