"""How fast the components, the networks and the data path are, alone and beside other libraries."""
