"""A TFCluster's node: the supervisor of a TensorFlow process, on an executor or the driver's host. No TensorFlow."""
