"""Images from anywhere, and batches of them."""
