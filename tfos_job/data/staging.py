"""Remote shards become local files, since TensorFlow reads no HDFS: all on a worker, one at a time elsewhere.

Each copy is whole, and of the size and SHA-256 that the manifest says, before it bears its name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tfos_job import storage
from tfos_job.cluster.topology import Copy
from tfos_job.data.manifest import Manifest, shard_paths
from tfos_job.errors import BadDataError, ResourceError
from tfos_job.layout import SplitLayout, join


@dataclass(frozen=True)
class Staged:
    """What a copying has cost."""

    num_files: int
    size_bytes: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.num_files} files, {_mib(self.size_bytes)} MiB in {self.seconds:.1f} s"


def copies_of(split: SplitLayout, manifest: Manifest, folder: str) -> list[Copy | None]:
    """For each shard the copy that a node needs, below its own `folder`; None for one that it reads where it is."""
    return [
        None
        if storage.local_path(path) is not None
        else Copy(path, join(folder, shard.file), shard.size_bytes, shard.sha256)
        for path, shard in zip(shard_paths(split, manifest), manifest.shards, strict=True)
    ]


def stage(copies: Sequence[Copy], folder: str, should_stop: Callable[[], bool] = lambda: False) -> Staged:
    """Makes all copies, below `folder`.

    Args:
      copies: what to copy; a target that is named twice is copied once.
      folder: on the disk that is to hold them.
      should_stop: asked before each file; True ends the work as it is.

    Raises:
      ResourceError: the disk has too little room.
      BadDataError: a file is not what its manifest says.
      JobError: what storage raises where a file cannot be read or written.
    """
    began = time.monotonic()
    by_target = {copy.target: copy for copy in copies}
    size_bytes = sum(copy.size_bytes for copy in by_target.values())
    _require_room(folder, size_bytes)
    # All folders first: where somebody has removed `folder` meanwhile, nothing makes it anew.
    for parent in sorted({os.path.dirname(os.path.join(folder, target)) for target in by_target}):
        os.makedirs(parent, exist_ok=True)
    for copy in by_target.values():
        if should_stop():
            break
        fetch(copy.source, os.path.join(folder, copy.target), copy.size_bytes, copy.sha256)
    return Staged(len(by_target), size_bytes, time.monotonic() - began)


def fetch(source: str, target: str, size_bytes: int, sha256: str) -> None:
    """Copies one file and proves it.

    Raises:
      BadDataError: it is not of that size and digest.
      JobError: what storage raises.
    """
    found = storage.download(source, target)
    found_bytes = os.path.getsize(target)
    if (found_bytes, found) != (size_bytes, sha256):
        os.unlink(target)
        fact = (
            f"has {found_bytes} bytes, its manifest says {size_bytes}"
            if found_bytes != size_bytes
            else f"has SHA-256 {found[:12]}, its manifest says {sha256[:12]}"
        )
        raise BadDataError(fact, place=source, next_step="Convert the split again, or restore the file")


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
