"""Where the time of ViT-B/16 goes, and how time grows with size."""
