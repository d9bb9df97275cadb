"""Where images come from, and batches of them on the device."""
