"""Both networks."""
