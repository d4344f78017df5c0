"""The protocol between the driver and the processes of a training, and its roles. No TensorFlow, no Spark."""
