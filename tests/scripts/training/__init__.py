"""The loop, its end at any instant, optimizers and precisions."""
