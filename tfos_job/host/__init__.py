"""What a process of the job is started with, and how the one that starts it and the one that is started talk."""
