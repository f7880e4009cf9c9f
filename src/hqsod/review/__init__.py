"""The job: a page where a person judges the doubtful masks of a data set."""
