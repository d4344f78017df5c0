"""Training itself: step, loop, engine, and the processes that they run in. TensorFlow, no Spark."""
