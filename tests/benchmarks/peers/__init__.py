"""Other libraries do the same work, and the table says which was faster."""
