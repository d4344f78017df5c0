"""`spark-submit spark/train_job.py FLAGS` is `tfos-job train FLAGS`."""

import sys

from tfos_job.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
