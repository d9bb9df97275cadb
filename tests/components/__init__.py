"""The laws of single components."""
