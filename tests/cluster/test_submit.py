"""The programs under `spark/`, started by the real spark-submit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from tests.command import ROOT, SMALL, tally

pytestmark = pytest.mark.cluster

SPARK_HOME = Path(pyspark.__file__).parent


def spark_submit(master: str, program: str, *args: object) -> subprocess.CompletedProcess[str]:
    tally["starts"] += 1
    environment = {"SPARK_HOME": str(SPARK_HOME), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    return subprocess.run(
        [SPARK_HOME / "bin" / "spark-submit", "--master", master, ROOT / "spark" / program, *map(str, args)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_main_job(small_dataset: Path, tmp_path: Path) -> None:
    options = ("--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, "--max_number_of_steps", 3)
    trained = spark_submit("local[2]", "train_job.py", *options)
    assert trained.returncode == 0, trained.stderr
    assert json.loads((tmp_path / "report.json").read_text())["state"] == "finished"
    converted = spark_submit(
        "local[2]", "convert_job.py", "--gnt_dir", small_dataset.parent / "gnt/train", "--dataset_dir", small_dataset
    )
    assert converted.returncode == 0, converted.stderr
    assert "is up to date" in converted.stdout + converted.stderr


def test_its_master_has_too_few_slots(small_dataset: Path, tmp_path: Path) -> None:
    refused = spark_submit("local[1]", "train_job.py", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL)
    assert refused.returncode == 78, refused.stderr
    assert "1 slot for 2 nodes" in refused.stdout + refused.stderr


def test_the_doctor() -> None:
    """Of executors that are not enough; the whole of it is in tests/spark/test_doctor.py."""
    refused = spark_submit("local[1]", "doctor_job.py", "--num_executors", 2, "--num_gpus", 1)
    assert refused.returncode == 78, refused.stderr
    assert "2 of 14 checks failed: executors: " in refused.stdout + refused.stderr
