"""Pages and pictures say what the code does."""
