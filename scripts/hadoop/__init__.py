"""What `scripts/hadoop.py` is made of: the daemons of a real Hadoop on this machine, and the hosts they may run on."""
