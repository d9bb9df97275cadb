"""The comparison of two trees."""
