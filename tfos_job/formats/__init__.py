"""Bytes of files and what they mean: GNT, TFRecord, pictures, charsets, manifests. No TensorFlow, no Spark."""
