"""`spark-submit spark/evaluate_job.py FLAGS` is `tfos-job evaluate FLAGS`."""

import sys

from tfos_job.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
