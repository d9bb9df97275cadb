"""Data sources, augmentation, and batches on the device."""
