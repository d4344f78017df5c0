"""From TFRecord shards to batches of tensors. TensorFlow, no Spark."""
