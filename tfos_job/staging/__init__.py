"""Remote shards on a worker's own disk: the cache's plan, and the stager that fills it. No TensorFlow, no Spark."""
