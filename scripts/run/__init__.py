"""The run folder, what the report needs of the test set, and the report."""
