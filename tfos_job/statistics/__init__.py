"""Statistics of a split's pixels, and the Spark task that computes their sums. No TensorFlow, no Spark."""
