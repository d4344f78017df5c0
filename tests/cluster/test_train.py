"""The main job from the command line: what it leaves on disk, what it refuses, what it learns and what it cannot."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from PIL import Image

from tests.command import SMALL, StartCommand, run
from tfos_job.config import SynthConfig
from tfos_job.data import gnt
from tfos_job.data.synth import synthesize
from tfos_job.layout import DatasetLayout
from tfos_job.lease import Lease

pytestmark = pytest.mark.cluster

NUM_CLASSES = 30
TRAINING = ("--image_size", "32", "--batch_size", "64", "--epoch", "8", "--learning_rate", "5e-4", "--eval_steps", "0")


@pytest.fixture(scope="module")
def gnt_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("main")
    synthesize(SynthConfig(gnt_dir=str(folder / "train"), charset_size=NUM_CLASSES, num_writers=40))
    synthesize(SynthConfig(gnt_dir=str(folder / "test"), charset_size=NUM_CLASSES, num_writers=10, first_writer=41))
    return folder


def main_job(train_gnt: Path, test_gnt: Path, folder: Path) -> dict[str, Any]:
    """convert × 2, train, evaluate; returns what evaluate says."""
    dataset = ("--dataset_dir", folder / "dataset")
    run("convert", "--gnt_dir", train_gnt, *dataset, "--charset_size", NUM_CLASSES)
    run("convert", "--gnt_dir", test_gnt, *dataset, "--dataset_split_name", "test")
    run("train", *dataset, "--train_dir", folder / "run", *TRAINING, "--validation_split_name", "test")
    return run("evaluate", *dataset, "--train_dir", folder / "run").result()


def test_writers_never_seen_are_read(gnt_dir: Path, tmp_path: Path) -> None:
    evaluation = main_job(gnt_dir / "train", gnt_dir / "test", tmp_path)
    assert 0.90 <= evaluation["top_1"] <= evaluation["top_3"] <= evaluation["top_5"] <= 1
    assert evaluation["num_examples"] == 10 * NUM_CLASSES
    steps = 8 * 40 * NUM_CLASSES // 64
    assert evaluation["step"] == steps

    train_dir = tmp_path / "run"
    # The evaluation within training, on the cluster, counted the same.
    report = json.loads((train_dir / "report.json").read_text())
    assert report["state"] == "finished"
    assert report["metrics"]["num_examples"] == evaluation["num_examples"]
    assert report["metrics"]["top_1"] == pytest.approx(evaluation["top_1"], abs=1e-9)
    assert report["records_read"] == [steps * 64]
    assert report["images_per_second"] > 0
    assert report["input_mode"] == "preloaded"
    assert [attempt["records"] for attempt in report["attempts"]] == [{"seen_twice": 0, "skipped": 0}]
    bound = report["bound"]
    assert bound["by"] in ("network", "compute")
    assert sum(bound["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert bound["shares"]["input"] < 0.1  # 0.02 is the aim; a busy machine must not fail the test
    assert 0 < bound["compute_s"] < bound["step_s"]
    scalars = {kind: read_scalars(train_dir / "summaries" / kind) for kind in ("train", "validation")}
    assert scalars["train"] >= {"loss", "top_1", "learning_rate", "images_per_second", "input_wait_fraction"}
    assert scalars["validation"] >= {"loss", "top_1", "top_3", "top_5"}
    with Image.open(train_dir / "loss.png") as picture:
        assert picture.size == (1000, 400)

    checkpoint = (train_dir / "checkpoints" / f"step-{steps:08d}" / "checkpoint.json").stat()
    again = run("train", "--dataset_dir", tmp_path / "dataset", "--train_dir", train_dir, *TRAINING)
    assert "Nothing to do" in again.stderr
    assert (train_dir / "checkpoints" / f"step-{steps:08d}" / "checkpoint.json").stat() == checkpoint

    right = 0
    images, characters = glyphs(gnt_dir / "test", tmp_path)
    lines = run("predict", "--train_dir", train_dir, *images).stdout.splitlines()
    for line, character in zip(map(json.loads, lines), characters, strict=True):
        right += line["top"][0]["character"] == character
    assert right >= 0.8 * len(images)


def test_shuffled_labels_teach_nothing(gnt_dir: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    generator = random.Random(0)
    for path in sorted((gnt_dir / "train").glob("*.gnt")):
        with path.open("rb") as source:
            records = list(gnt.read_records(source, str(path)))
        tags = [record.tag for record in records]
        generator.shuffle(tags)
        content = b"".join(relabelled(record, tag) for record, tag in zip(records, tags, strict=True))
        (shuffled / path.name).write_bytes(content)
    evaluation = main_job(shuffled, gnt_dir / "test", tmp_path)
    # Chance is 1/30; 300 test records put three standard deviations at 0.031.
    assert evaluation["top_1"] < 1 / NUM_CLASSES + 0.05


def relabelled(record: gnt.Record, tag: bytes) -> bytes:
    size = 10 + len(record.pixels)
    return (
        size.to_bytes(4, "little")
        + tag
        + record.width.to_bytes(2, "little")
        + record.height.to_bytes(2, "little")
        + record.pixels
    )


def read_scalars(folder: Path) -> set[str]:
    tags = set()
    for path in folder.iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            tags |= {value.tag for value in event.summary.value}
    return tags


def glyphs(folder: Path, target: Path) -> tuple[list[Path], list[str]]:
    """The first characters of a test writer as PNG files, and what they are."""
    images, characters = [], []
    path = min(folder.glob("*.gnt"))
    with path.open("rb") as source:
        for number, record in zip(range(10), gnt.read_records(source, str(path)), strict=False):
            images.append(target / f"{number}.png")
            Image.frombytes("L", (record.width, record.height), record.pixels).save(images[-1])
            characters.append(str(gnt.decode_tag(record.tag)))
    return images, characters


def test_two_workers_in_separate_executors(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    job = start(
        "train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, "--num_executors", "3",
        "--max_number_of_steps", "50", "--master", "local-cluster[3,1,1024]", "--validation_split_name", "test",
    )  # fmt: skip
    assert job.wait(240) == 0, job.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["step"] == 50
    # Which worker took which step is the coordinator's choice; that no step is lost is not.
    assert len(report["records_read"]) == 2
    assert min(report["records_read"]) > 0
    assert sum(report["records_read"]) == 50 * 32
    assert report["metrics"]["num_examples"] == 20


def test_too_few_slots_are_said_at_once(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    job = start(
        "train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, "--num_executors", "3", "--master", "local[2]"
    )
    assert job.wait() == 78
    assert time.monotonic() - began < 10
    assert "2 slots for 3 nodes" in job.stderr
    assert "local[3]" in job.stderr


def test_a_run_from_another_runs_checkpoint(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    options = ("--dataset_dir", small_dataset, *SMALL)
    run("train", *options, "--train_dir", tmp_path / "first", "--max_number_of_steps", "2")
    origin = tmp_path / "first" / "checkpoints" / "step-00000002"
    again = ("train", *options, "--train_dir", tmp_path / "second", "--restore", origin, "--max_number_of_steps", "4")
    run(*again)
    names = [path.name for path in sorted((tmp_path / "second" / "checkpoints").iterdir())]
    assert names == ["step-00000002", "step-00000004"]
    # The same command once more is a resumption like any other.
    assert "Nothing to do" in run(*again).stderr


@pytest.mark.parametrize("input_mode", ["files", "preloaded"])
def test_a_flipped_bit_ends_training_with_its_file_and_byte(
    start: StartCommand, small_dataset: Path, tmp_path: Path, input_mode: str
) -> None:
    dataset = tmp_path / "dataset"
    shutil.copytree(small_dataset, dataset)
    shard = max((dataset / "train").rglob("*.tfrecord"), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    job = start("train", "--dataset_dir", dataset, "--train_dir", tmp_path / "run", *SMALL, "--input_mode", input_mode)
    assert job.wait() == 65
    assert re.search(rf"{shard.name}, byte \d+: checksum of data does not fit", job.stderr)


def test_what_does_not_fit_the_run_is_refused(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    options = ("--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL)
    run("train", *options, "--max_number_of_steps", "2")
    report = (tmp_path / "report.json").read_bytes()
    refusals = {
        ("--image_size", "24"): "images 16 × 16 × 1",
        ("--restore", "none"): "has checkpoints already",
        ("--dataset_split_name", "test"): "made with dataset",
    }
    for flags, words in refusals.items():
        job = start("train", *options, "--max_number_of_steps", "4", *flags)
        assert job.wait() == 78, job.stderr
        assert words in job.stderr
    checkpoint = tmp_path / "checkpoints" / "step-00000002"
    job = start(
        "train", "--dataset_dir", small_dataset, "--train_dir", tmp_path / "new", *SMALL, "--restore", checkpoint,
        "--max_number_of_steps", "2",
    )  # fmt: skip
    assert job.wait() == 78
    assert "the checkpoint is of step 2" in job.stderr
    # Settings that cannot work do not cost the run that is there.
    job = start("train", *options, "--overwrite", "--num_executors", "12", "--master", "local[12]")
    assert job.wait() == 78
    assert "cannot be divided among 11 workers" in job.stderr
    assert checkpoint.is_dir()
    with Lease(str(tmp_path / "_lock"), "another job"):
        job = start("train", *options)
        assert job.wait() == 75
        assert "another job" in job.stderr
    missing = start("train", "--dataset_dir", tmp_path / "nowhere", "--train_dir", tmp_path / "new")
    assert missing.wait() == 66
    assert DatasetLayout(str(tmp_path / "nowhere")).split("train").manifest in missing.stderr
    # A refusal leaves the account of what was done as it is.
    assert (tmp_path / "report.json").read_bytes() == report
