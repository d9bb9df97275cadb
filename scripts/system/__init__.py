"""Command line, files, machine, devices, processes and signals."""
