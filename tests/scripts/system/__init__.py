"""Processes, devices, and what depends on the machine."""
