"""Statistics of a split's pixels, and the task that sums them. No TensorFlow, no Spark."""
