"""Work on the driver with a SparkContext: the session, tasks, one attempt at a training."""
