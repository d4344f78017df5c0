"""A worker's cache of remote shards on its disk, since TensorFlow does not read HDFS.

A shard gets its name in the cache after its size and SHA-256 have been compared with the manifest (`copies.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tfos_job import storage
from tfos_job.errors import ResourceError
from tfos_job.formats.manifest import Manifest, shard_paths, shards_dir
from tfos_job.layout import SplitLayout, join
from tfos_job.staging.cache_plan import DONE_DIR, GIVEN_DIR, CachePlan, Copy, turn_name
from tfos_job.staging.copies import fetch, mib

_POLL_S = 0.1
_PROGRESS_S = 30.0
RESERVE_BYTES = 256 << 20
"""Space on a worker's disk that stays free for logs and temporary files of TensorFlow and Python."""


@dataclass(frozen=True)
class Staged:
    """The cost of copying so far; `num_left` counts the shards that have not been given for the first time."""

    num_files: int
    size_bytes: int
    seconds: float
    num_left: int

    def __str__(self) -> str:
        left = f", {self.num_left} shards to come" if self.num_left else ""
        return f"{self.num_files} files, {mib(self.size_bytes)} MiB in {self.seconds:.1f} s{left}"


def copies_of(split: SplitLayout, manifest: Manifest, folder: str) -> tuple[Copy, ...]:
    """Returns the copies of a split's shards that a node needs, below `folder`; empty for local shards."""
    if storage.local_path(shards_dir(split, manifest)) is not None:
        return ()
    return tuple(
        Copy(path, join(folder, shard.file), shard.size_bytes, shard.sha256)
        for path, shard in zip(shard_paths(split, manifest), manifest.shards, strict=True)
    )


class Stager:
    """A worker's shard cache: copies shards ahead of their reader and evicts the least recently read.

    Args:
      plan: shards, their order, and the cache's limit.
      folder: working directory of the worker, where its reader finds the shards.
      cache_dir: folder of the cache, on the same disk.
      on_progress: called now and then, and when all shards have been copied once.
    """

    def __init__(self, plan: CachePlan, folder: str, cache_dir: str, on_progress: Callable[[Staged], None]) -> None:
        self._plan = plan
        self._folder = folder
        self._cache_dir = cache_dir
        self._on_progress = on_progress
        self._cached: OrderedDict[int, int] = OrderedDict()  # bytes by shard, the least recently read first
        self._readers: Counter[int] = Counter()  # unfinished readings of each shard
        self._num_files = self._size_bytes = 0
        self._began = self._reported = time.monotonic()

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Copies until `should_stop` is true, or until no file is left to copy.

        Raises:
          ResourceError: the disk is too small.
          BadDataError: a file differs from its manifest.
          JobError: storage cannot read or write a file.
        """
        limit = self._limit()
        for name in (GIVEN_DIR, DONE_DIR, *sorted({os.path.dirname(copy.target) for copy in self._plan.pinned})):
            os.makedirs(os.path.join(self._folder, name), exist_ok=True)
        os.makedirs(self._cache_dir, exist_ok=True)
        pinned = list(reversed(self._plan.pinned))
        positions = enumerate(self._plan.positions())
        upcoming = next(positions, None)
        num_left = len(self._plan.shards)
        is_reported = False
        while not should_stop():
            if upcoming is not None and self._evict_for(upcoming[1][1], limit):
                self._give(*upcoming[1])
                num_left = max(0, len(self._plan.shards) - upcoming[0] - 1)
                upcoming = next(positions, None)
            elif pinned:  # after the shards that training begins with
                copy = pinned.pop()
                self._bring(copy, copy.target)
            elif upcoming is None:
                return
            else:
                time.sleep(_POLL_S)
            all_there = not num_left and not pinned
            if not is_reported and (all_there or time.monotonic() - self._reported > _PROGRESS_S):
                self._report(num_left)
                is_reported = all_there

    def _limit(self) -> int:
        """Returns the bytes that training shards may take on this disk.

        Raises:
          ResourceError: they are too few for the shards that are read at the same time.
        """
        plan = self._plan
        size_bytes = sum(copy.size_bytes for copy in plan.shards)
        wanted = size_bytes if plan.cache_bytes is None else min(size_bytes, plan.cache_bytes)
        # Files of an earlier attempt are used or evicted, so their space counts as free.
        free = shutil.disk_usage(self._folder).free + self._cached_bytes() - RESERVE_BYTES
        if free < plan.least_bytes:
            raise ResourceError(
                f"{mib(plan.least_bytes)} MiB of shards must be there at a time, and {mib(free)} MiB are free",
                place=self._folder,
                next_step="Free some space, use more workers, or convert with a smaller --target_shard_mb",
            )
        return min(wanted, free - plan.pinned_bytes)

    def _cached_bytes(self) -> int:
        found = 0
        for copy in {*self._plan.shards, *self._plan.pinned}:
            with contextlib.suppress(FileNotFoundError):
                found += os.path.getsize(self._cache_path(copy))
        return found

    def _evict_for(self, index: int, limit: int) -> bool:
        """Evicts shards for the next one; true if it can be given now."""
        self._note_done()
        if self._readers.total() >= max(len(self._plan.shards), self._plan.window):
            return False  # stay at most one epoch ahead
        if index in self._cached:
            return True
        missing = sum(self._cached.values()) + self._plan.shards[index].size_bytes - limit
        idle = [candidate for candidate in self._cached if not self._readers[candidate]]
        while missing > 0 and idle:
            victim = idle.pop(0)
            missing -= self._cached.pop(victim)
            with contextlib.suppress(FileNotFoundError):  # another worker on this host may have removed it
                os.unlink(self._cache_path(self._plan.shards[victim]))
        return missing <= 0

    def _note_done(self) -> None:
        for name in os.listdir(os.path.join(self._folder, DONE_DIR)):
            os.unlink(os.path.join(self._folder, DONE_DIR, name))
            os.unlink(os.path.join(self._folder, GIVEN_DIR, name))
            index = int(name.partition("-")[2])
            self._readers[index] -= 1
            self._cached.move_to_end(index)

    def _give(self, epoch: int, index: int) -> None:
        copy = self._plan.shards[index]
        self._bring(copy, os.path.join(GIVEN_DIR, turn_name(epoch, index)), is_verified=index in self._cached)
        self._cached[index] = copy.size_bytes
        self._readers[index] += 1

    def _bring(self, copy: Copy, name: str, *, is_verified: bool = False) -> None:
        """Links a verified file of the cache to a name in the worker's directory; copies it first if necessary."""
        path, target = self._cache_path(copy), os.path.join(self._folder, name)
        while True:
            if not is_verified and not _is_intact(path, copy):
                self._fetch(copy, path)
            try:
                os.link(path, target)
            except FileNotFoundError:
                if os.path.exists(path):
                    raise  # the worker's own directory was removed
                is_verified = False  # another worker on this host has evicted the file
            else:
                return

    def _fetch(self, copy: Copy, path: str) -> None:
        # Of a worker that is killed meanwhile nothing stays in the cache, which other attempts use.
        fetch(copy.source, path, copy.size_bytes, copy.sha256, folder=self._folder)
        self._num_files += 1
        self._size_bytes += copy.size_bytes

    def _report(self, num_left: int) -> None:
        self._reported = time.monotonic()
        self._on_progress(Staged(self._num_files, self._size_bytes, self._reported - self._began, num_left))

    def _cache_path(self, copy: Copy) -> str:
        return os.path.join(self._cache_dir, copy.sha256)


def _is_intact(path: str, copy: Copy) -> bool:
    try:
        if os.path.getsize(path) != copy.size_bytes:
            return False
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == copy.sha256
    except FileNotFoundError:
        return False
