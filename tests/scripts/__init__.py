"""What people type, from the flags to the page."""
