"""Programs of trained networks that need none of this code."""
