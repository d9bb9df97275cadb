"""What the components, the networks and the data path cost, and what other libraries cost beside them."""
