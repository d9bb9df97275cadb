"""Changed components that no test notices, and why."""
