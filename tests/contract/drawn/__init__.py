"""The contract on drawn configurations: what the fixed rows do not happen to have."""
