"""What the flags of `submit` say of what travels to the containers: Python, Spark's jars, this package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfos_job.submit import environment, spark_arguments
from tfos_job.submit.spark_submit import Shipped

_SEEDS_FOLDER = "Python"


def names(options: argparse.Namespace, spark_args: Sequence[str], hdfs_dir: str) -> Shipped:
    """The names of what travels to the containers; nothing is packed or uploaded."""
    shipment = environment.plan(hdfs_dir, python=packs_python(options, spark_args))
    archive, python = shipment.python_archive, f"./{environment.FOLDER}/bin/python"
    if _brings_python(spark_args):
        archive, python = "", f"./{_SEEDS_FOLDER}/bin/python"
    elif options.environment == "none":
        archive, python = "", sys.executable
    elif options.environment != "auto":
        url, _, folder = options.environment.partition("#")
        folder = folder or environment.FOLDER
        archive, python = f"{url}#{folder}", f"./{folder}/bin/python"
    return Shipped(archive=archive, python=python, spark_archive=shipment.spark_archive, package=shipment.package)


def packs_python(options: argparse.Namespace, spark_args: Sequence[str]) -> bool:
    return options.environment == "auto" and not _brings_python(spark_args)


def _brings_python(spark_args: Sequence[str]) -> bool:
    """True if the user ships Python as the seed job did: `-- --archives Python.zip#Python`."""
    archives = spark_arguments.parse(spark_args)[0].get("spark.archives", "")
    return any(archive.endswith(f"#{_SEEDS_FOLDER}") for archive in archives.split(","))
