"""Where the time of ViT-B/16 goes, and how the cost grows with the size of the work."""
