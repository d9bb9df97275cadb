"""The specification of the kit."""
