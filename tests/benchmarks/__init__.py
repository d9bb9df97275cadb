"""What the benchmarks promise: right outputs, honest times, and results that survive."""
