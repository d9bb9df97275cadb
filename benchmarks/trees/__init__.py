"""The comparison of two trees: this one and that of a commit."""
