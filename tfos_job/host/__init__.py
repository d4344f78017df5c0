"""Processes, ports and signals of one host, and the environment of a job's processes."""
