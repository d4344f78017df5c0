"""From the submitting host to YARN: what is sent there, the spark-submit line, and watching over the application."""
