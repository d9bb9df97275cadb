"""Laws that hold for all components together: kernels, lifetime, streams, wrappers."""
