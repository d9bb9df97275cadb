"""The run folder, what is found in it, figures and the page."""
