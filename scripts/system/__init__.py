"""What a run needs of the system: the command line, files, the machine, devices, processes and signals."""
