"""What puts the components together: data, models, training, reports, and an entry for each run."""
