"""The pictures, tables and file lists of the READMEs."""
