"""What a worker reads from its own disk and has to be brought there, and in which order. Pure, without TensorFlow.

`input_pipeline` reads in the same order, from the same names.
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
"""Shards that are read at a time where the disk holds as many. The order of records follows from it."""


@dataclass(frozen=True)
class Copy:
    """A file that a worker copies to its own disk before it reads it, and how to tell that it is the right one.

    `target` is relative to the worker process's own working directory: one name for all workers.
    """

    source: str
    target: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CachePlan:
    """What a worker's stager is to bring, and how much of it may be on the disk at a time.

    A shard is on the disk under its digest, which is its place in the cache, and for each time that it is read it has
    a name of its own in `GIVEN_DIR`: that appears when the reader may begin. When the reader is through it leaves the
    same name in `DONE_DIR`. The cache may be one that an earlier attempt on this host has filled.

    Attributes:
      shards: the worker's training shards.
      pinned: what is to be there under its own target for good: the validation split.
      seed: of the order (`shard_order`).
      first_epoch: the one that reading begins with.
      once: each shard is read a single time, in the order of `shards`: what is read is kept in memory.
      window: shards that are read at a time.
      cache_bytes: for the training shards; None for as much as they take.
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
        """What must fit on the disk at a time."""
        sizes = sorted((copy.size_bytes for copy in self.shards), reverse=True)
        return self.pinned_bytes + sum(sizes[: self.window])

    def positions(self) -> Iterator[tuple[int, int]]:
        """(epoch, index of the shard), in the order of reading."""
        if self.once:
            yield from ((self.first_epoch, index) for index in range(len(self.shards)))
            return
        for epoch in itertools.count(self.first_epoch):
            yield from ((epoch, index) for index in shard_order(len(self.shards), self.seed, epoch))


def turn_name(epoch: int, index: int) -> str:
    """One reading of a shard: a name in `GIVEN_DIR` and in `DONE_DIR`."""
    return f"{epoch}-{index}"


# --- the order -------------------------------------------------------------------------------------------------------

GAMMA = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""SplitMix64 (https://prng.di.unimi.it/splitmix64.c): its step, and the shifts and factors of its output function."""


def shard_order(num_shards: int, seed: int, epoch: int) -> list[int]:
    """The permutation of 0 to `num_shards` - 1 in which the shards are read in `epoch`."""
    order: list[int] = np.argsort(random_bits(seed, epoch, num_shards), kind="stable").tolist()
    return order


def random_bits(seed: int, stream: int, count: int) -> npt.NDArray[np.uint64]:
    """`draws.random_bits` for the indices 0 to `count` - 1, without TensorFlow."""
    with np.errstate(over="ignore"):
        key = _mix(_mix(np.array([seed], np.uint64)) + np.uint64(stream))
        return _mix(key + np.arange(count, dtype=np.uint64) * np.uint64(GAMMA))


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = x + np.uint64(GAMMA)
    for shift, factor in MIX:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))
