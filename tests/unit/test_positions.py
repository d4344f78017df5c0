"""Where a resumed run goes on in its input, and what that costs."""

from __future__ import annotations

from typing import Any

import pytest

from tfos_job.config import TrainConfig
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import Shard
from tfos_job.jobs import train
from tfos_job.run.checkpoints import CheckpointInfo

SIZES = (30, 20, 10, 40)  # two workers have 50 records each


def data(charset: str = "一丁") -> train._Data:
    shards = tuple(Shard(file=f"{n}", size_bytes=1, sha256=f"{n}", num_records=n, sources=()) for n in SIZES)
    manifest = Manifest(
        split_name="train",
        generation=0,
        image_format="raw",
        charset_digest=Charset(tuple(charset)).digest,
        shards=shards,
        sources=(),
        class_counts=(50, 50),
        settings={},
        history=(),
        created="",
        package_version="0",
    )
    return train._Data(
        charset=Charset(tuple(charset)),
        train=manifest,
        train_shards=[f"/{shard.file}" for shard in shards],
        validation_shards=[],
        train_copies=(),
        validation_copies=(),
    )


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(dataset_dir="d", train_dir="t", **{"num_executors": 3, "input_mode": "files", **changes})


def checkpoint(records_read: list[int], **changes: Any) -> CheckpointInfo:
    """Of a run with two workers that read files."""
    position = {"records_read": records_read, "order": train._order(config(**changes), data())}
    return CheckpointInfo("/step", {"step": 7, "input_position": position, "dataset_digest": data().train.digest})


@pytest.mark.parametrize(
    ("now", "read", "positions", "seen_twice", "skipped"),
    [
        ({}, [130, 120], (130, 120), 0, 0),
        ({"input_mode": "preloaded"}, [130, 120], (100, 100), 50, 0),
        ({"seed": 1}, [50, 50], (50, 50), 0, 0),  # at an epoch's border another order costs nothing
        ({"num_executors": 2}, [140, 70], (200,), 40, 30),  # the second worker was still in the epoch before
        ({"num_executors": 5}, [60, 50], (40, 30, 20, 10), 10, 0),
        ({"seed": 1}, [], (0, 0), 0, 0),
    ],
)
def test_what_a_resumption_shows_twice_or_skips(
    now: dict[str, Any], read: list[int], positions: tuple[int, ...], seen_twice: int, skipped: int
) -> None:
    found, records = train._positions(config(**now), data(), checkpoint(read))
    assert sorted(found) == sorted(positions)
    assert records == ({"seen_twice": seen_twice, "skipped": skipped} if read else None)


def test_a_buffer_of_another_size_matters_to_files_alone() -> None:
    preloaded = {"input_mode": "preloaded"}
    assert train._positions(config(shuffle_buffer=5), data(), checkpoint([130, 120]))[0] == (100, 100)
    found, _ = train._positions(config(shuffle_buffer=5, **preloaded), data(), checkpoint([130, 120], **preloaded))
    assert found == (130, 120)


def test_of_other_data_nothing_was_seen_or_skipped() -> None:
    assert train._positions(config(), data("七万"), checkpoint([130, 120])) == ((100, 100), None)
