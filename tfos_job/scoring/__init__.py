"""Answers about many inputs, on many executors: inputs, partitions, output; no TensorFlow, no pyspark."""
