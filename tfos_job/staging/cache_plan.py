"""The plan of a worker's shard cache: the files to copy to its disk, and their order. Pure, without TensorFlow.

`input/pipeline.py` reads in the same order, from the same names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GIVEN_DIR = "given"
DONE_DIR = "done"
MAX_WINDOW = 16
"""Number of shards that are read at the same time, if the disk has room for them. It affects the order of records."""


@dataclass(frozen=True)
class Copy:
    """A file that a worker copies to its disk before it reads it, with the size and digest that verify the copy.

    `target` is relative to the working directory of the worker's process, so that it is the same for all workers.
    """

    source: str
    target: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CachePlan:
    """The files that a worker's stager copies, and the limit of its disk cache.

    In the cache a shard's file is named by its digest. For each reading of a shard a link appears in `GIVEN_DIR` when
    the reader may begin, and the reader leaves the same name in `DONE_DIR` when it has finished. The cache may contain
    files of an earlier attempt on this host.

    Attributes:
      shards: the worker's training shards.
      pinned: files that stay under their own targets: the validation split.
      seed: of the order (`shard_order`).
      first_epoch: epoch in which reading begins.
      once: True if each shard is read once, in the order of `shards`, since the records stay in memory.
      window: number of shards that are read at the same time.
      cache_bytes: limit for the training shards; None: unlimited.
    """

    shards: tuple[Copy, ...]
    pinned: tuple[Copy, ...]
    seed: int
    first_epoch: int
    once: bool
    window: int
    cache_bytes: int | None

    @property
    def pinned_bytes(self) -> int:
        return sum(copy.size_bytes for copy in self.pinned)

    @property
    def least_bytes(self) -> int:
        """Bytes that must fit on the disk at the same time."""
        sizes = sorted((copy.size_bytes for copy in self.shards), reverse=True)
        return self.pinned_bytes + sum(sizes[: self.window])

    def positions(self) -> Iterator[tuple[int, int]]:
        """Yields (epoch, index of the shard) in the order of reading."""
        if self.once:
            yield from ((self.first_epoch, index) for index in range(len(self.shards)))
            return
        for epoch in itertools.count(self.first_epoch):
            yield from ((epoch, index) for index in shard_order(len(self.shards), self.seed, epoch))


def turn_name(epoch: int, index: int) -> str:
    """Returns the name of one reading of a shard, in `GIVEN_DIR` and `DONE_DIR`."""
    return f"{epoch}-{index}"


# --- the order -------------------------------------------------------------------------------------------------------

GAMMA = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""SplitMix64 (https://prng.di.unimi.it/splitmix64.c): its step, and the shifts and factors of its output function."""


def shard_order(num_shards: int, seed: int, epoch: int) -> list[int]:
    """Returns the permutation of 0 to `num_shards` - 1 in which the shards are read in `epoch`."""
    order: list[int] = np.argsort(random_bits(seed, epoch, num_shards), kind="stable").tolist()
    return order


def random_bits(seed: int, stream: int, count: int) -> npt.NDArray[np.uint64]:
    """Returns `stateless_random.random_bits` for the indices 0 to `count` - 1, without TensorFlow."""
    with np.errstate(over="ignore"):
        key = _mix(_mix(np.array([seed], np.uint64)) + np.uint64(stream))
        return _mix(key + np.arange(count, dtype=np.uint64) * np.uint64(GAMMA))


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = x + np.uint64(GAMMA)
    for shift, factor in MIX:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))
