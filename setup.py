"""The shim of pyproject.toml, which has the metadata, and the one thing that it cannot say: where `spark/` goes.

A checkout has the programs of spark-submit at its top, a wheel has them inside the package, as `tfos_job/spark/`.
`tfos_job/submit/spark_folder.py` finds either.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["tfos_job", "tfos_job.*"]),
        *("tfos_job.spark", "tfos_job.spark.conf", "tfos_job.spark.kubernetes"),
    ],
    package_dir={"tfos_job.spark": "spark"},
)
