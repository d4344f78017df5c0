"""Whether a cluster can hold a job: what each process sees there, and what follows from it."""
