"""`spark-submit spark/verify_job.py FLAGS` is `tfos-job verify FLAGS`."""

import sys

from tfos_job.cli import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
