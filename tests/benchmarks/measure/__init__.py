"""The clock, the modes, the FLOPs, and what is known of the machine."""
