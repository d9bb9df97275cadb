"""The contract that every component keeps, item by item."""
