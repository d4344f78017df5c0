"""Training on a live HDFS: shards reach the nodes' disks whole and proved, or the job says which did not."""

from __future__ import annotations

import dataclasses
import json
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import ENDLESS, SMALL, StartCommand
from tests.hadoop.conftest import Hadoop, upload
from tests.unit.small_checkpoints import model_arrays
from tfos_job import cli, storage
from tfos_job.config import TrainConfig, to_dict
from tfos_job.errors import MissingInputError
from tfos_job.formats import manifest as manifests
from tfos_job.layout import DatasetLayout, RunLayout, checkpoint_step
from tfos_job.networks import registry
from tfos_job.run import checkpoints
from tfos_job.staging.cache_plan import CachePlan
from tfos_job.staging.stager import Stager, copies_of

pytestmark = pytest.mark.hadoop


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where commands put temporary files; empty at the end of a test but for what Spark leaves."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    assert not list(folder.glob("tfos_job-*"))


Main = Callable[..., Any]


@pytest.fixture
def main(capfd: pytest.CaptureFixture[str]) -> Main:
    """Runs a command in this process; it must end well. Returns the JSON value of stdout's last line."""

    def run(*args: object) -> Any:
        capfd.readouterr()
        assert cli.main([str(word) for word in args]) == 0
        return json.loads(capfd.readouterr().out.splitlines()[-1])

    return run


def test_two_workers_outlive_a_namenode_that_is_away(
    hadoop: Hadoop, dataset_on_hdfs: str, hdfs_dir: str, scratch: Path, start: StartCommand, main: Main
) -> None:
    run = RunLayout(f"{hdfs_dir}/run")
    options = ("--dataset_dir", dataset_on_hdfs, "--train_dir", run.root)
    # With a checkpoint every few steps, there is one on its way whenever the NameNode goes.
    often = ("--save_steps", 5, "--eval_steps", 20, "--validation_split_name", "test")
    cluster = ("--master", "local-cluster[2,1,1024]", "--num_executors", 3, "--ps_place", "driver")
    job = start("train", *options, *SMALL, *ENDLESS, *often, *cluster)

    def num_checkpoints() -> int:
        return job.stderr.count(": checkpoint hdfs://")

    job.wait_for_line(": test: loss ")
    # Of eight training shards each worker copies half, and both the two of validation.
    job.wait_until(lambda: job.stderr.count("copied 6 files") == 2)
    hadoop.kill("namenode")
    hadoop.up()
    before = num_checkpoints() + 1  # one may have been written before and be told of now
    job.wait_until(lambda: num_checkpoints() > before)
    evaluated = job.stderr.count(": test: loss ")
    job.wait_until(lambda: job.stderr.count(": test: loss ") > evaluated)
    job.send_signal(signal.SIGTERM)
    assert job.wait() == 143, job.stderr
    assert storage.read_json(run.report)["state"] == "interrupted"
    # What the cluster counted, the command counts as well.
    steps = {checkpoint_step(entry.name) for entry in storage.list_dir(run.checkpoints_dir)}
    step = max(step for step in steps if step and storage.exists(run.evaluation(step, "test")))
    counted = storage.read_json(run.evaluation(step, "test"))
    evaluation = main("evaluate", *options, "--checkpoint", run.checkpoint(step))
    assert evaluation["num_examples"] == counted["num_examples"] == 20
    assert evaluation["loss"] == pytest.approx(counted["loss"], rel=1e-4)


@pytest.fixture
def untrained(dataset_on_hdfs: str, hdfs_dir: str) -> RunLayout:
    """A run on HDFS as `train` leaves it, whose network has learnt nothing."""
    run, dataset = RunLayout(f"{hdfs_dir}/run"), DatasetLayout(dataset_on_hdfs)
    charset = manifests.load_charset(dataset)
    model = {"model_name": "chinese_rec", "num_classes": len(charset), "image_size": 16, "keep_prob": 0.8}
    meta = {
        "model": model,
        "characters": "".join(charset.characters),
        "charset_digest": charset.digest,
        "dataset_digest": manifests.load(dataset.split("train")).digest,
        "input_position": {},
        "metrics": {},
    }
    checkpoints.publish(run, 20, model_arrays(registry.build(**model, seed=1)), meta)
    points = [{"step": step, "loss": 2.0, "top_1": 0.1, "learning_rate": 1e-3} for step in (1, 20)]
    curve = [{**point, "images_per_second": 9.0} for point in points]
    storage.write_json(run.report, {"state": "finished", "exit_code": 0, "step": 20, "curve": curve, "attempts": []})
    config = TrainConfig(dataset_dir=dataset_on_hdfs, train_dir=run.root, image_size=16)
    storage.write_json(run.config, to_dict(config))
    return run


def test_pictures_on_hdfs(dataset_on_hdfs: str, hdfs_dir: str, untrained: RunLayout, scratch: Path, main: Main) -> None:
    dataset, run = ("--dataset_dir", dataset_on_hdfs), ("--train_dir", untrained.root)
    for _ in range(2):  # the second one replaces what the first one made
        pictures = main("evaluate", *dataset, *run)["pictures"]
        assert {entry.name for entry in storage.list_dir(pictures)} >= {"confusions.png", "hardest.png", "hardest.csv"}
    inspected = main("inspect", *dataset, "--output_dir", f"{hdfs_dir}/new/inspect")
    page = main("report", *run, "--html", f"{hdfs_dir}/new/pages/run.html")
    assert page["missing"] == []
    assert page["size_bytes"] == storage.stat(page["html"]).size_bytes
    assert storage.read_bytes(inspected["contact_sheet"]).startswith(b"\x89PNG")


def test_a_flipped_bit_is_bad_data_and_names_the_file(
    small_dataset: Path, hdfs_dir: str, scratch: Path, start: StartCommand
) -> None:
    dataset_dir = upload(small_dataset, f"{hdfs_dir}/dataset")
    path = storage.find(f"{dataset_dir}/train", ".tfrecord")[3].path
    content = bytearray(storage.read_bytes(path))
    content[len(content) // 2] ^= 1
    storage.write_bytes(path, bytes(content))
    job = start(
        *("train", "--dataset_dir", dataset_dir, "--train_dir", f"{hdfs_dir}/run", *SMALL, *ENDLESS),
        *("--master", "local[2]"),
    )
    assert job.wait() == 65, job.stderr
    last_line = job.stderr.splitlines()[-1]
    assert path in last_line
    assert "its manifest says" in last_line


def test_a_shard_that_is_not_there_is_missing_input(dataset_on_hdfs: str, tmp_path: Path) -> None:
    """To the stager; what becomes of its errors is seen above."""
    split = DatasetLayout(dataset_on_hdfs).split("train")
    there, other, *_ = copies_of(split, manifests.load(split), "train")
    gone = dataclasses.replace(other, source=f"{other.source}.gone")
    plan = CachePlan(shards=(there, gone), pinned=(), seed=0, first_epoch=0, once=True, window=1, cache_bytes=None)
    with pytest.raises(MissingInputError, match="not there") as caught:
        Stager(plan, str(tmp_path), str(tmp_path / "cache"), lambda _: None).run()
    assert (caught.value.place, caught.value.exit_code) == (gone.source, 66)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [there.sha256]
