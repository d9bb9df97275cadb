"""What the runs train and what the report shows of it, one file for each network."""
