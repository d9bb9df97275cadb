"""Weights of every family, and hostile files."""
