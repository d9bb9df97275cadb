"""The comparison with modules of other libraries."""
