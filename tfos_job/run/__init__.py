"""A training run's folder: its settings, checkpoints and predictions. No TensorFlow, no Spark."""
