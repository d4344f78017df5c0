"""Commands that run in one process on this host, without Spark."""
