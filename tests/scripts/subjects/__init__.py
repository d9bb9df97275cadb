"""What runs train, and what their reports show of it."""
