"""What a training learns, and what it must not, without a cluster: by benchmarks/accuracy.py, on synthetic hands.

What a cluster adds is in tests/cluster and tests/real.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import accuracy
from tests.command import tally
from tfos_job.config import SynthConfig
from tfos_job.formats import gnt, gnt_reader
from tfos_job.local_jobs.synth import synthesize

NUM_CLASSES, NUM_WRITERS, NUM_EPOCHS = 10, 20, 9
CHANCE = 1 / NUM_CLASSES
FLAGS = {"model_name": "chinese_rec", "image_size": 16, "batch_size": 20, "learning_rate": 1e-3}
WIRE = {"batch_size": 10, "push_every": 2, "wire_dtype": "bfloat16"}  # as many images in an update


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hands")
    for side, num_writers, first in (("train", NUM_WRITERS, 1), ("test", 10, NUM_WRITERS + 1)):
        synthesize(
            SynthConfig(
                gnt_dir=str(folder / side), charset_size=NUM_CLASSES, num_writers=num_writers, first_writer=first
            )
        )
    return folder


def top_1(train: Path, test: Path, folder: Path, **changes: Any) -> float:
    folder.mkdir()
    data = accuracy.load(sorted(train.glob("*.gnt")), sorted(test.glob("*.gnt")), folder)
    assert data.num_train == NUM_WRITERS * NUM_CLASSES
    tally["trainings"] += 1
    tally["images"] += NUM_EPOCHS * data.num_train
    found: float = accuracy.run(data, FLAGS | changes, seed=0, epochs=NUM_EPOCHS, num_looks=1)["top_1"]
    return found


def with_other_labels(train: Path, target: Path) -> Path:
    """The same pictures, each writer's characters shuffled among the classes."""
    target.mkdir()
    generator = random.Random(0)
    for path in sorted(train.glob("*.gnt")):
        with path.open("rb") as source:
            records = list(gnt_reader.read_records(source, str(path)))
        tags = [record.tag for record in records]
        generator.shuffle(tags)
        (target / path.name).write_bytes(b"".join(relabelled(records, tags)))
    return target


def relabelled(records: list[gnt.Record], tags: list[bytes]) -> Iterator[bytes]:
    for record, tag in zip(records, tags, strict=True):
        size = 10 + len(record.pixels)
        yield size.to_bytes(4, "little") + tag
        yield record.width.to_bytes(2, "little") + record.height.to_bytes(2, "little") + record.pixels


def test_hands_never_seen_are_read_and_shuffled_labels_teach_nothing(hands: Path, tmp_path: Path) -> None:
    assert top_1(hands / "train", hands / "test", tmp_path / "sound", **WIRE) >= 0.9
    # 100 test records put three standard deviations at 0.09.
    shuffled = with_other_labels(hands / "train", tmp_path / "other")
    assert top_1(shuffled, hands / "test", tmp_path / "shuffled") < CHANCE + 0.15
