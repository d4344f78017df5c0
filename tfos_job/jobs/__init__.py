"""The driver side of each stage: a SparkSession and a config in, a result out."""
