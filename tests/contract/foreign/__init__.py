"""Modules of other libraries under the contract: rows, results, and the defects found."""
