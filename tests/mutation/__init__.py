"""Mutation testing, and the mutants that no test can kill."""
