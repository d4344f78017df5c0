"""`spark-submit spark/convert_job.py FLAGS` is `tfos-job convert FLAGS`."""

import sys

from tfos_job.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
