"""`spark-submit spark/export_job.py FLAGS` is `tfos-job export FLAGS`."""

import sys

from tfos_job.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
