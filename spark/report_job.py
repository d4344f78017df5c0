"""`spark-submit spark/report_job.py FLAGS` is `tfos-job report FLAGS`."""

import sys

from tfos_job.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
