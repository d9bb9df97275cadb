"""How anything is measured: clock, modes, memory, FLOPs, the machine, and whether what was timed was right."""
