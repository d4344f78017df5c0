"""A network that answers by HTTP (flask, waitress, prometheus_client; TensorFlow by way of inference)."""
