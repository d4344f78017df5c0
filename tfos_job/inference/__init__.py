"""From a checkpoint to answers: exact evaluation, and the classes of single images. TensorFlow, no Spark."""
