"""Reading what a stager brings, as graphs, against a stager that runs."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.unit import streams
from tfos_job.config import FILES, PRELOADED
from tfos_job.input import waiting
from tfos_job.staging import cache_plan
from tfos_job.staging.cache_plan import CachePlan, Copy
from tfos_job.staging.stager import Stager

NUM_SHARDS, PER_SHARD, SEED = 5, 4, 3
NUM_RECORDS = NUM_SHARDS * PER_SHARD
FORM = streams.InFours(image_size=4)


def test_the_order_is_the_stagers() -> None:
    for seed, epoch, count in [(0, 0, 1), (0, 0, 40), (0, 1, 40), (7_000_021, 3, 1000), (2**40, 12, 17)]:
        found = waiting.shard_order(*(tf.constant(x, tf.int64) for x in (count, seed, epoch)))
        assert found.numpy().tolist() == cache_plan.shard_order(count, seed, epoch)
        assert sorted(found.numpy()) == list(range(count))


@pytest.fixture
def copies(write_shard: Callable[..., str]) -> list[Copy]:
    found = []
    for shard in range(NUM_SHARDS):
        glyphs = [(np.full((4, 4), 7, np.uint8), shard * PER_SHARD + i) for i in range(PER_SHARD)]
        path = write_shard(f"{shard}.tfrecord", glyphs)
        data = Path(path).read_bytes()
        found.append(Copy(path, f"validation/{shard}", len(data), hashlib.sha256(data).hexdigest()))
    return found


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[CachePlan], None]]:
    """A worker's directory, which this process works in, with a stager at work."""
    folder = tmp_path / "node"
    folder.mkdir()
    monkeypatch.chdir(folder)
    ended, threads = threading.Event(), []

    def start(given: CachePlan) -> None:
        stager = Stager(given, str(folder), str(folder / "cache"), lambda _: None)
        threads.append(threading.Thread(target=stager.run, args=(ended.is_set,)))
        threads[0].start()

    yield start
    ended.set()
    threads[0].join()


def labels(mode: str, copies: list[Copy], *, staged: bool, start_record: int) -> list[int]:
    read = streams.training(mode=mode, staged=staged, window=2, batch_size=5, form=FORM, shuffle_buffer=3)
    shards = [copy.source for copy in copies]
    batches = read(shards, 12, num_records=NUM_RECORDS, seed=SEED, start_record=start_record)
    return [int(label) for _, batch, _ in batches for label in batch]


@pytest.mark.parametrize("mode", [FILES, PRELOADED])
@pytest.mark.parametrize("start_record", [0, 27])
def test_staged_shards_are_read_as_local_ones_are(
    node: Callable[[CachePlan], None], copies: list[Copy], mode: str, start_record: int
) -> None:
    """Three epochs through a cache of two shards: the same records in the same order as from files that lie there."""
    expected = labels(mode, copies, staged=False, start_record=start_record)
    once = mode == PRELOADED
    node(
        CachePlan(
            shards=tuple(copies),
            pinned=(),
            seed=SEED,
            first_epoch=start_record // NUM_RECORDS,
            once=once,
            window=1 if once else 2,
            cache_bytes=2 * max(copy.size_bytes for copy in copies),
        )
    )
    assert labels(mode, copies, staged=True, start_record=start_record) == expected
    assert len(os.listdir("cache")) <= 2


def test_validation_shards_are_waited_for(node: Callable[[CachePlan], None], copies: list[Copy]) -> None:
    node(
        CachePlan(
            shards=tuple(copies[:1]),
            pinned=tuple(copies),
            seed=SEED,
            first_epoch=0,
            once=True,
            window=1,
            cache_bytes=None,
        )
    )
    _, found = streams.evaluation(batch_size=8, form=FORM, staged=True)([copy.target for copy in copies])
    assert found.tolist() == list(range(NUM_RECORDS))
