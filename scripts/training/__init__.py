"""Recipe and plan, the training loop, its state and checkpoints, and the optimizers."""
