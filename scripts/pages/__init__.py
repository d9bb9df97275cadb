"""Pictures and tables of the READMEs."""
