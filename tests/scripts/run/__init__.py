"""The run folder, theta's statistics and attention maps."""
