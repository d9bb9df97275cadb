"""The bug museum: mistakes that people made in these classes, or are known to make, and what rejects each."""
