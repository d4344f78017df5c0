"""What is made of a run on HDFS and YARN: rows of `infer`, counts of `evaluate`, and an export that is served."""

from __future__ import annotations

import contextlib
import io
import json
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.parquet
import pytest

from tests.callers import Client, ask_until_closed, cross
from tests.command import StartCommand, Submission, Submit, starting
from tests.hadoop.conftest import Hadoop
from tests.unit.small_checkpoints import publish_untrained
from tfos_job import Predictor, storage
from tfos_job.config import ExportConfig
from tfos_job.layout import ExportLayout, InferenceLayout, RunLayout
from tfos_job.local_jobs.export import export
from tfos_job.run import exports

pytestmark = pytest.mark.hadoop


@pytest.fixture(scope="module")
def run(hadoop: Hadoop, dataset_on_hdfs: str) -> RunLayout:
    """A run whose network has learnt nothing."""
    run = RunLayout(f"{hadoop.url}/infer/run")
    publish_untrained(run, dataset_on_hdfs)
    return run


@pytest.fixture(scope="module")
def exported(run: RunLayout) -> Iterator[Submission]:
    """What exports it on YARN, beside whatever else is at work there."""
    with starting(Submission) as start:
        yield start("export", "--train_dir", run.root, "--export_dir", f"{run.root}-exports")


def test_a_split_becomes_parquet_once(
    hadoop: Hadoop, run: RunLayout, exported: Submission, dataset_on_hdfs: str, hdfs_dir: str, submit: Submit
) -> None:
    output = InferenceLayout(f"{hdfs_dir}/out")
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
    assert exported.wait() == 0, exported.stderr
    applications = hadoop.applications()
    again = submit(*words)
    assert again.wait() == 0, again.stderr
    assert again.result()["up_to_date"]
    assert hadoop.applications() == applications  # nothing was submitted

    evaluation = counted.result()
    assert (evaluation["num_examples"], evaluation["step"]) == (80, 20)
    assert storage.read_json(run.evaluation(20, "train"))["loss"] == evaluation["loss"]


def test_an_export_on_hdfs_answers_and_so_does_its_next_version(
    run: RunLayout, exported: Submission, dataset_on_hdfs: str, start: StartCommand
) -> None:
    assert exported.wait() == 0, exported.stderr
    versions = ExportLayout(f"{run.root}-exports")
    assert (exported.result()["version"], exported.result()["path"]) == (1, versions.version(1))
    expected = Predictor(run.root)
    server = start("serve", "--export_dir", versions.root, "--port", 0, "--reload_seconds", 0.2)
    server.wait_until(lambda: "\n" in server.stdout)
    ready = json.loads(server.stdout.splitlines()[0])
    assert ready["models"][0]["digest"] == exported.result()["digest"] == expected.digest
    port = int(ready["url"].strip("/").rpartition(":")[2])
    _, answer = ask(port, "/predict", cross())
    (found,) = [prediction["top"] for prediction in answer["predictions"]]
    (top,) = [prediction["top"] for prediction in expected.predict([cross()])]
    assert [guess["character"] for guess in found] == [guess["character"] for guess in top]

    seen: Counter[int] = Counter()
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        stack.callback(server.end)  # where this test fails, so that its caller ends
        caller = pool.submit(ask_until_closed, port, seen)
        publish_damaged(versions)
        server.wait_for_line(f"goes on with {versions.version(1)}: ")
        assert "does not have the SHA-256" in server.stderr
        assert ask(port, "/predict", cross())[1]["digest"] == expected.digest
        publish_untrained(run, dataset_on_hdfs, step=21, seed=2)
        newer = export(ExportConfig(train_dir=run.root, export_dir=versions.root))
        assert newer["version"] == 3
        server.wait_until(lambda: ask(port, "/v1/models/default/versions/3")[0] == 200)
        assert ask(port, "/predict", cross())[1]["digest"] == newer["digest"] != expected.digest
        count = seen[200]
        server.wait_until(lambda: seen[200] > count + 5)
        assert set(seen) == {200}  # whatever answered
        server.send_signal(signal.SIGTERM)
        caller.result()
        assert server.wait() == 143
    assert server.stderr.splitlines()[-1].endswith("no request is left without an answer")


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, Any]:
    """One request, on a connection of its own: the server closes those that are idle."""
    with contextlib.closing(Client(port)) as client:
        return client.ask(path, body)


def publish_damaged(versions: ExportLayout) -> None:
    """Version 2: the first one with a bit flipped in its largest file."""
    first = exports.read(versions.version(1))
    sizes = {name: entry["size_bytes"] for name, entry in first.document["files"].items()}
    largest, building = max(sizes, key=sizes.__getitem__), versions.building("test")
    for entry in storage.find(first.path, ""):
        name = entry.path.removeprefix(f"{first.path}/")
        content = bytearray(storage.read_bytes(entry.path))
        if name == largest:
            content[len(content) // 2] ^= 1
        storage.make_dirs(f"{building}/{name}".rpartition("/")[0])
        storage.write_bytes(f"{building}/{name}", bytes(content))
    storage.publish_dir(building, versions.version(2))
