"""What the benchmarks promise: what they time is done, right and named."""
