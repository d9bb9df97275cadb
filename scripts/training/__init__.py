"""The loop, what it resumes from, and the optimizers."""
