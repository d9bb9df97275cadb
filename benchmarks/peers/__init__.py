"""Other libraries' modules beside the kit's."""
