"""The networks that the runs train, put together from the components."""
