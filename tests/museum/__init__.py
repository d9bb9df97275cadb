"""The bug museum: known mistakes in these classes, and the law that rejects each."""
