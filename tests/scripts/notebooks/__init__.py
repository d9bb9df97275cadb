"""The notebooks: same cells as their scripts, executed, small."""
