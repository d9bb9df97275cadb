"""Data sources, augmentation and batches."""
