"""The networks, put together from the components."""
