"""The breakdown of a network's time, and the exponents of its cost."""
