"""Training on a live HDFS: shards reach the nodes' disks whole and proved, or the job says which did not."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import SMALL, Command, run
from tests.hadoop.conftest import Hadoop
from tfos_job import storage
from tfos_job.config import SynthConfig
from tfos_job.data.synth import synthesize

pytestmark = pytest.mark.hadoop


@pytest.fixture(scope="module")
def local_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits `train` (8 shards) and `test` (2 others) of 10 classes."""
    folder = tmp_path_factory.mktemp("staging")
    for split, num_writers, first in (("train", 8, 1), ("test", 2, 9)):
        gnt_dir = str(folder / "gnt" / split)
        synthesize(SynthConfig(gnt_dir=gnt_dir, charset_size=10, num_writers=num_writers, first_writer=first))
        options = ("--dataset_dir", folder / "dataset", "--dataset_split_name", split)
        run("convert", "--gnt_dir", gnt_dir, *options, *(("--charset_size", 10) if split == "train" else ()))
    return folder / "dataset"


@pytest.fixture
def dataset_dir(local_dataset: Path, hdfs_dir: str) -> str:
    """The same on HDFS."""
    for path in sorted(local_dataset.rglob("*")):
        if path.is_file():
            target = f"{hdfs_dir}/dataset/{path.relative_to(local_dataset)}"
            storage.make_dirs(target.rpartition("/")[0])
            storage.write_bytes(target, path.read_bytes())
    return f"{hdfs_dir}/dataset"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where commands put temporary files; empty at the end of a test but for what Spark leaves."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    assert not list(folder.glob("tfos_job-*"))


def start_training(dataset_dir: str, train_dir: str, *flags: object) -> Command:
    return Command(
        *map(str, ("train", "--dataset_dir", dataset_dir, "--train_dir", train_dir, *SMALL, *flags)),
    )


def end_of(job: Command) -> int:
    try:
        return job.wait(280)
    finally:
        job.end()


# The second cache holds less than the four shards of a worker: each epoch brings some of them again.
@pytest.mark.parametrize("flags", [("--input_mode", "preloaded"), ("--input_mode", "files", "--cache_gb", "0.0002")])
def test_dataset_and_run_on_hdfs(dataset_dir: str, hdfs_dir: str, scratch: Path, flags: tuple[str, ...]) -> None:
    job = start_training(
        dataset_dir, f"{hdfs_dir}/run", "--max_number_of_steps", 30, "--validation_split_name", "test",
        "--master", "local-cluster[2,1,1024]", "--num_executors", 3, "--ps_place", "driver", *flags,
    )  # fmt: skip
    assert end_of(job) == 0, job.stderr
    # Of eight training shards each worker copies half, and both the two of validation.
    assert job.stderr.count("copied 6 files") == 2
    report = storage.read_json(f"{hdfs_dir}/run/report.json")
    assert report["step"] == 30
    evaluation = run("evaluate", "--dataset_dir", dataset_dir, "--train_dir", f"{hdfs_dir}/run").result()
    assert evaluation["num_examples"] == report["metrics"]["num_examples"] == 20
    assert evaluation["loss"] == pytest.approx(report["metrics"]["loss"], rel=1e-4)


def test_pictures_on_hdfs(dataset_dir: str, hdfs_dir: str, scratch: Path) -> None:
    train_dir = f"{hdfs_dir}/run"
    job = start_training(dataset_dir, train_dir, "--max_number_of_steps", 10, "--master", "local[2]")
    assert end_of(job) == 0, job.stderr
    for _ in range(2):  # the second one replaces what the first one made
        pictures = run("evaluate", "--dataset_dir", dataset_dir, "--train_dir", train_dir).result()["pictures"]
        assert {entry.name for entry in storage.list_dir(pictures)} >= {"confusions.png", "hardest.png", "hardest.csv"}
    inspected = run("inspect", "--dataset_dir", dataset_dir, "--output_dir", f"{hdfs_dir}/new/inspect").result()
    page = run("report", "--train_dir", train_dir, "--html", f"{hdfs_dir}/new/pages/run.html").result()
    assert page["missing"] == []
    assert page["size_bytes"] == storage.stat(page["html"]).size_bytes
    assert storage.read_bytes(inspected["contact_sheet"]).startswith(b"\x89PNG")


def shard(dataset_dir: str) -> str:
    return storage.find(f"{dataset_dir}/train", ".tfrecord")[3].path


def test_a_flipped_bit_is_bad_data_and_names_the_file(dataset_dir: str, hdfs_dir: str, scratch: Path) -> None:
    path = shard(dataset_dir)
    content = bytearray(storage.read_bytes(path))
    content[len(content) // 2] ^= 1
    storage.write_bytes(path, bytes(content))
    job = start_training(dataset_dir, f"{hdfs_dir}/run", "--max_number_of_steps", 30, "--master", "local[2]")
    assert end_of(job) == 65, job.stderr
    last_line = job.stderr.splitlines()[-1]
    assert path in last_line
    assert "its manifest says" in last_line


def test_a_shard_that_is_not_there_is_missing_input(dataset_dir: str, hdfs_dir: str, scratch: Path) -> None:
    path = shard(dataset_dir)
    storage.remove(path)
    job = start_training(dataset_dir, f"{hdfs_dir}/run", "--max_number_of_steps", 30, "--master", "local[2]")
    assert end_of(job) == 66, job.stderr
    assert path in job.stderr.splitlines()[-1]


def test_training_outlives_a_namenode_that_is_away(hadoop: Hadoop, dataset_dir: str, hdfs_dir: str) -> None:
    job = start_training(
        dataset_dir, f"{hdfs_dir}/run", "--max_number_of_steps", 400, "--save_steps", 50, "--master", "local[2]"
    )
    try:
        job.wait_for_line("step 50: checkpoint", 240)
        hadoop.kill("namenode")
        time.sleep(20)
        assert "step 400: checkpoint" not in job.stderr
    finally:
        hadoop.up()
    assert end_of(job) == 0, job.stderr
    report = storage.read_json(f"{hdfs_dir}/run/report.json")
    assert (report["state"], report["step"]) == ("finished", 400)
    assert storage.exists(f"{hdfs_dir}/run/checkpoints/step-00000400/checkpoint.json")
