"""A TensorFlowOnSpark batch job: GNT shards to TFRecords to a trained classifier, on a Hadoop cluster."""

__version__ = "0.1.0"
