"""`spark-submit spark/predict_job.py FLAGS` is `tfos-job predict FLAGS`."""

import sys

from tfos_job.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
