"""Training PurNet: data, stages as values, and the job."""
