"""The networks as runs train them, with their optimizers and findings."""
