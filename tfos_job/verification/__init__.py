"""The proof of a dataset: shards, duplicates, and consistency of its manifests. No TensorFlow, no Spark."""
