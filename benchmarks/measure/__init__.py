"""How things are measured: timing, calls, memory, FLOPs, the machine, and the check of every output."""
