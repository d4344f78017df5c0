"""Checks that a cluster meets a job's requirements: probes of each process, and their diagnosis."""
