"""The run folder, and what is found in a run."""
