"""A network that answers by HTTP (flask, waitress, greenlet, prometheus_client; TensorFlow by way of inference)."""
