"""Remote shards become local files, since TensorFlow reads no HDFS: all on a worker, one at a time elsewhere.

Each copy is whole, and of the size and SHA-256 that the manifest says, before it bears its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tfos_job import storage
from tfos_job.errors import BadDataError, ResourceError
from tfos_job.formats.manifest import Manifest, shard_paths
from tfos_job.formats.tfrecord import read_records
from tfos_job.layout import SplitLayout, join
from tfos_job.staging.cache_plan import DONE_DIR, GIVEN_DIR, CachePlan, Copy, turn_name

_POLL_S = 0.1
_NEWS_S = 30.0
RESERVE_BYTES = 256 << 20
"""Of a worker's disk, left free for logs, TensorFlow's and Python's temporary files."""


@dataclass(frozen=True)
class Staged:
    """What the copying has cost so far; `num_left` are shards that have not had their first turn."""

    num_files: int
    size_bytes: int
    seconds: float
    num_left: int

    def __str__(self) -> str:
        left = f", {self.num_left} shards to come" if self.num_left else ""
        return f"{self.num_files} files, {_mib(self.size_bytes)} MiB in {self.seconds:.1f} s{left}"


def copies_of(split: SplitLayout, manifest: Manifest, folder: str) -> tuple[Copy, ...]:
    """For each shard the copy that a node needs, below its own `folder`; none for a split that it reads where it is."""
    if storage.local_path(split.root) is not None:
        return ()
    return tuple(
        Copy(path, join(folder, shard.file), shard.size_bytes, shard.sha256)
        for path, shard in zip(shard_paths(split, manifest), manifest.shards, strict=True)
    )


class Stager:
    """Brings shards to a worker's disk ahead of its reader, and takes away what has not been read for longest.

    Args:
      plan: what to bring.
      folder: the worker's own directory, where its reader looks.
      cache_dir: on the same disk.
      on_news: told now and then until everything has been there, and then.
    """

    def __init__(self, plan: CachePlan, folder: str, cache_dir: str, on_news: Callable[[Staged], None]) -> None:
        self._plan = plan
        self._folder = folder
        self._cache_dir = cache_dir
        self._on_news = on_news
        self._cached: OrderedDict[int, int] = OrderedDict()  # bytes by shard, the longest unread one first
        self._readers: Counter[int] = Counter()  # times that a shard was given and is not done
        self._num_files = self._size_bytes = 0
        self._began = self._told = time.monotonic()

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Works until `should_stop`, or until there is nothing more to bring.

        Raises:
          ResourceError: the disk has too little room.
          BadDataError: a file is not what its manifest says.
          JobError: what storage raises where a file cannot be read or written.
        """
        limit = self._limit()
        for name in (GIVEN_DIR, DONE_DIR, *sorted({os.path.dirname(copy.target) for copy in self._plan.pinned})):
            os.makedirs(os.path.join(self._folder, name), exist_ok=True)
        os.makedirs(self._cache_dir, exist_ok=True)
        pinned = list(reversed(self._plan.pinned))
        positions = enumerate(self._plan.positions())
        upcoming = next(positions, None)
        num_left = len(self._plan.shards)
        is_told = False
        while not should_stop():
            if upcoming is not None and self._make_room(upcoming[1][1], limit):
                self._give(*upcoming[1])
                num_left = max(0, len(self._plan.shards) - upcoming[0] - 1)
                upcoming = next(positions, None)
            elif pinned:  # what training begins with has come first
                copy = pinned.pop()
                self._bring(copy, copy.target)
            elif upcoming is None:
                return
            else:
                time.sleep(_POLL_S)
            all_there = not num_left and not pinned
            if not is_told and (all_there or time.monotonic() - self._told > _NEWS_S):
                self._tell(num_left)
                is_told = all_there

    def _limit(self) -> int:
        """Bytes that training shards may take here.

        Raises:
          ResourceError: too few for what is read at a time.
        """
        plan = self._plan
        size_bytes = sum(copy.size_bytes for copy in plan.shards)
        wanted = size_bytes if plan.cache_bytes is None else min(size_bytes, plan.cache_bytes)
        # What an earlier attempt has brought is there to be used, or to make room.
        free = shutil.disk_usage(self._folder).free + self._bytes_there() - RESERVE_BYTES
        if free < plan.least_bytes:
            raise ResourceError(
                f"{_mib(plan.least_bytes)} MiB of shards are to be there at a time, and {_mib(free)} MiB are free",
                place=self._folder,
                next_step="Free some space, use more workers, or convert with a smaller --target_shard_mb",
            )
        return min(wanted, free - plan.pinned_bytes)

    def _bytes_there(self) -> int:
        found = 0
        for copy in {*self._plan.shards, *self._plan.pinned}:
            with contextlib.suppress(FileNotFoundError):
                found += os.path.getsize(self._cache_path(copy))
        return found

    def _make_room(self, index: int, limit: int) -> bool:
        """Whether a shard can be given now."""
        self._note_done()
        if self._readers.total() >= max(len(self._plan.shards), self._plan.window):
            return False  # an epoch ahead is enough
        if index in self._cached:
            return True
        missing = sum(self._cached.values()) + self._plan.shards[index].size_bytes - limit
        idle = [candidate for candidate in self._cached if not self._readers[candidate]]
        while missing > 0 and idle:
            victim = idle.pop(0)
            missing -= self._cached.pop(victim)
            with contextlib.suppress(FileNotFoundError):  # another worker on this host may have been quicker
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
        self._bring(copy, os.path.join(GIVEN_DIR, turn_name(epoch, index)), proved=index in self._cached)
        self._cached[index] = copy.size_bytes
        self._readers[index] += 1

    def _bring(self, copy: Copy, name: str, *, proved: bool = False) -> None:
        """Gives a file of the cache a name in the worker's directory, where it is whole and proved."""
        path, target = self._cache_path(copy), os.path.join(self._folder, name)
        while True:
            if not proved and not _is_whole(path, copy):
                self._fetch(copy, path)
            try:
                os.link(path, target)
            except FileNotFoundError:
                if os.path.exists(path):
                    raise  # the worker's own directory is gone
                proved = False  # another worker on this host has made room for itself
            else:
                return

    def _fetch(self, copy: Copy, path: str) -> None:
        fetch(copy.source, path, copy.size_bytes, copy.sha256)
        self._num_files += 1
        self._size_bytes += copy.size_bytes

    def _tell(self, num_left: int) -> None:
        self._told = time.monotonic()
        self._on_news(Staged(self._num_files, self._size_bytes, self._told - self._began, num_left))

    def _cache_path(self, copy: Copy) -> str:
        return os.path.join(self._cache_dir, copy.sha256)


def _is_whole(path: str, copy: Copy) -> bool:
    try:
        if os.path.getsize(path) != copy.size_bytes:
            return False
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == copy.sha256
    except FileNotFoundError:
        return False


def fetch(source: str, target: str, size_bytes: int, sha256: str) -> None:
    """Copies one file and proves it.

    Raises:
      BadDataError: it is not of that size and digest.
      JobError: what storage raises.
    """
    unproved = f"{target}.{uuid.uuid4().hex}"
    try:
        found = storage.download(source, unproved)
        found_bytes = os.path.getsize(unproved)
        if (found_bytes, found) != (size_bytes, sha256):
            fact = (
                f"has {found_bytes} bytes, its manifest says {size_bytes}"
                if found_bytes != size_bytes
                else f"has SHA-256 {found[:12]}, its manifest says {sha256[:12]}"
            )
            place, what = _first_damage(unproved, source)
            raise BadDataError(fact + what, place=place, next_step="Convert the split again, or restore the file")
        os.replace(unproved, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unproved)


def _first_damage(path: str, source: str) -> tuple[str, str]:
    """Where a copy of a shard that is not what it should be has its first bad record, and what that is."""
    try:
        with open(path, "rb") as file:
            for _ in read_records(file, source):
                pass
    except BadDataError as error:
        return error.place, f": {error.fact}"
    return source, ""


@contextlib.contextmanager
def local_copy(path: str, size_bytes: int | None = None, sha256: str | None = None) -> Iterator[str]:
    """A local file with what is at `path`, for the length of a `with`: the file itself where it is local.

    A copy is proved where its size and digest are given.

    Raises:
      ResourceError: no room for a copy.
      BadDataError: the copy is not of that size and digest.
      JobError: what storage raises.
    """
    local = storage.local_path(path)
    if local is not None:
        yield local
        return
    with tempfile.TemporaryDirectory(prefix="tfos_job-") as folder:
        target = join(folder, path.rpartition("/")[2])
        _require_room(folder, storage.stat(path).size_bytes if size_bytes is None else size_bytes)
        if size_bytes is None or sha256 is None:
            storage.download(path, target)
        else:
            fetch(path, target, size_bytes, sha256)
        yield target


def _require_room(folder: str, size_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise ResourceError(
            f"{_mib(size_bytes)} MiB of shards are to be copied, and {_mib(free)} MiB are free",
            place=folder,
            next_step="Free some space, or use more workers, of which each copies its own part of the training shards",
        )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):,.1f}"
