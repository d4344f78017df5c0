"""The commands that run on Spark: a SparkSession and a configuration in, a result out. No TensorFlow."""
