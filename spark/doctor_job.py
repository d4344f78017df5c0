"""`spark-submit spark/doctor_job.py FLAGS` is `tfos-job doctor FLAGS`."""

import sys

from tfos_job.cli import main

if __name__ == "__main__":
    sys.exit(main(["doctor", *sys.argv[1:]]))
