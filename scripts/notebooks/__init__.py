"""The notebooks as scripts, and the command that executes them."""
