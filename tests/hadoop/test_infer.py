"""`infer`, and `evaluate` on executors, on a live YARN: what Parquet needs has travelled with the job."""

from __future__ import annotations

import io
import json

import pyarrow.parquet
import pytest

from tests.command import Submit
from tests.hadoop.conftest import Hadoop
from tests.unit.small_checkpoints import publish_untrained
from tfos_job import storage
from tfos_job.layout import InferenceLayout, RunLayout

pytestmark = pytest.mark.hadoop


def test_a_split_becomes_parquet_once(hadoop: Hadoop, dataset_on_hdfs: str, hdfs_dir: str, submit: Submit) -> None:
    run, output = RunLayout(f"{hdfs_dir}/run"), InferenceLayout(f"{hdfs_dir}/out")
    publish_untrained(run, dataset_on_hdfs)
    words = ("infer", "--train_dir", run.root, "--input", f"{dataset_on_hdfs}/test", "--output_dir", output.root)
    job = submit(*words)
    counted = submit(
        *("evaluate", "--dataset_dir", dataset_on_hdfs, "--train_dir", run.root),
        *("--dataset_split_name", "train", "--num_executors", 1, "--numbers_only"),
    )
    assert job.wait() == 0, job.stderr
    result = job.result()
    assert (result["num_rows"], result["num_errors"], result["num_labelled"]) == (20, 0, 20)
    parts = [entry.path for entry in storage.list_dir(output.root) if entry.name.startswith("part-")]
    tables = [pyarrow.parquet.read_table(io.BytesIO(storage.read_bytes(path))) for path in parts]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len(rows) == 20
    assert sum(row["class_ids"][0] == row["label_id"] for row in rows) == result["num_correct"]
    assert json.loads(storage.read_bytes(output.success))["num_rows"] == 20

    assert counted.wait() == 0, counted.stderr
    applications = hadoop.applications()
    again = submit(*words)
    assert again.wait() == 0, again.stderr
    assert again.result()["up_to_date"]
    assert hadoop.applications() == applications  # nothing was submitted

    evaluation = counted.result()
    assert (evaluation["num_examples"], evaluation["step"]) == (80, 20)
    assert storage.read_json(run.evaluation(20, "train"))["loss"] == evaluation["loss"]
