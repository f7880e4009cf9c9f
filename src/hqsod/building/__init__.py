"""The job: a high-quality data set, from layouts to manifest; and where it runs."""
