"""The main job: what it learns, and leaves on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tensorflow as tf
from PIL import Image

from tests.cluster import notebook
from tests.command import example
from tfos_job.formats import gnt, gnt_reader

pytestmark = pytest.mark.cluster

NUM_CLASSES, NUM_WRITERS, NUM_EPOCHS, BATCH_SIZE = 20, 24, 8, 32  # of examples/walkthrough.py


def test_writers_never_seen_are_read_in_a_notebook(tmp_path: Path) -> None:
    """All of it from Python, with the seed's network. What must not be learned is in tests/unit/test_learning.py."""
    steps = NUM_EPOCHS * NUM_WRITERS * NUM_CLASSES // BATCH_SIZE
    home = tmp_path / "walkthrough"
    *said, found = example(
        "walkthrough.py", home / "dataset", home / "again", folder=tmp_path,
        num_images=(steps + 2) * BATCH_SIZE, num_trainings=2, by=(notebook.__file__,),
    )  # fmt: skip
    # The first training was on a thread and in the program's session, which outlived it; the second on the main thread.
    assert json.loads(found) == {"rows": 3, "steps": 2, "changed": []}
    train_dir, gnt_dir = home / "run", home / "gnt"
    (path,) = (train_dir / "evaluation").glob("step-*-test.json")
    evaluation = json.loads(path.read_text())
    assert 0.90 <= evaluation["top_1"] <= evaluation["top_3"] <= evaluation["top_5"] <= 1
    assert evaluation["num_examples"] == 10 * NUM_CLASSES
    assert "ece" in evaluation  # the file is that of `evaluate`, not of the evaluation within training
    assert evaluation["step"] == steps

    # The evaluation within training, on the cluster, counted the same.
    report = json.loads((train_dir / "report.json").read_text())
    assert report["state"] == "finished"
    assert report["metrics"]["num_examples"] == evaluation["num_examples"]
    assert report["metrics"]["top_1"] == pytest.approx(evaluation["top_1"], abs=1e-9)
    assert report["records_read"] == [steps * BATCH_SIZE]
    assert report["images_per_second"] > 0
    assert report["input_mode"] == "preloaded"
    assert [attempt["records"] for attempt in report["attempts"]] == [{"seen_twice": 0, "skipped": 0}]
    bound = report["bound"]
    assert bound["by"] in ("network", "compute")  # not by input, whatever the machine
    assert sum(bound["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert min(bound["compute_s"], bound["step_s"]) > 0  # measured alone, a pass may take longer than a whole step
    scalars = {kind: read_scalars(train_dir / "summaries" / kind) for kind in ("train", "validation")}
    assert scalars["train"] >= {"loss", "top_1", "learning_rate", "images_per_second", "input_wait_fraction"}
    assert scalars["validation"] >= {"loss", "top_1", "top_3", "top_5"}
    with Image.open(train_dir / "loss.png") as picture:
        assert picture.size == (1000, 400)

    # What it says of a writer's characters, of one on a page and of an empty page.
    *told, on_page, empty = said[-NUM_CLASSES - 2 :]
    assert sum(line[0] == line[3] for line in told) >= 0.8 * NUM_CLASSES
    assert on_page[0] == on_page.partition(": ")[2][0]
    assert empty == "an empty page: blank"

    # And of the same characters in files, asked in each way that there is.
    images, characters = glyphs(gnt_dir / "test", tmp_path)
    lines = [line.split("\t") for line in example("predictor.py", train_dir, *images, folder=tmp_path)]
    assert [line[0] for line in lines] == [str(image) for image in images for _ in range(4)]
    assert [line[2] == character for line, character in zip(lines[::4], characters, strict=True)].count(True) >= 8
    for ways in zip(*(lines[way::4] for way in range(4)), strict=True):
        assert len({tuple(way[2:]) for way in ways}) == 1


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
        for number, record in zip(range(10), gnt_reader.read_records(source, str(path)), strict=False):
            images.append(target / f"{number}.png")
            Image.frombytes("L", (record.width, record.height), record.pixels).save(images[-1])
            characters.append(str(gnt.decode_tag(record.tag)))
    return images, characters
