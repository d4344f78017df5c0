"""What the driver and its processes say to each other, and who is who. No TensorFlow, no Spark."""
