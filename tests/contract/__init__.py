"""What every component keeps to, item by item."""
