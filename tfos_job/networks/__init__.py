"""The registry of networks, the networks, and their variables as named arrays. TensorFlow, no Spark."""
