"""The submitting host: archives for YARN, the spark-submit line, and supervision of the application."""
