"""Timing, calls, FLOPs, outputs and the description of the machine."""
