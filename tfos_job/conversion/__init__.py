"""From source files to the shards of a split: planning, and the work of one task. No TensorFlow, no Spark."""
