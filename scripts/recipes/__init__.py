"""The recipes, and the flags of the training scripts."""
