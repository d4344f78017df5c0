"""`spark-submit spark/infer_job.py FLAGS` is `tfos-job infer FLAGS`."""

import sys

from tfos_job.cli import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))
