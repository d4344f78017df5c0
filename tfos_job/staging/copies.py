"""Verified local copies of remote files, one at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator

from tfos_job import storage
from tfos_job.errors import BadDataError, ResourceError
from tfos_job.formats.tfrecord import read_records
from tfos_job.layout import join


def fetch(source: str, target: str, size_bytes: int, sha256: str, folder: str | None = None) -> None:
    """Copies one file and verifies the copy.

    Args:
      source: remote path.
      target: local path, at which the copy appears whole.
      size_bytes: of the file.
      sha256: of the file.
      folder: has the copy until it is verified, on the disk of `target` (default: the folder of `target`).

    Raises:
      BadDataError: its size or digest differs.
      JobError: storage fails.
    """
    unverified = os.path.join(folder or os.path.dirname(target), f"{os.path.basename(target)}.{uuid.uuid4().hex}")
    try:
        found = storage.download(source, unverified)
        found_bytes = os.path.getsize(unverified)
        if (found_bytes, found) != (size_bytes, sha256):
            fact = (
                f"has {found_bytes} bytes, its manifest says {size_bytes}"
                if found_bytes != size_bytes
                else f"has SHA-256 {found[:12]}, its manifest says {sha256[:12]}"
            )
            place, what = _first_damage(unverified, source)
            raise BadDataError(fact + what, place=place, next_step="Convert the split again, or restore the file")
        os.replace(unverified, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unverified)


def _first_damage(path: str, source: str) -> tuple[str, str]:
    """Returns place and description of the first bad record in a damaged copy of a shard."""
    try:
        with open(path, "rb") as file:
            for _ in read_records(file, source):
                pass
    except BadDataError as error:
        return error.place, f": {error.fact}"
    return source, ""


@contextlib.contextmanager
def local_copy(path: str, size_bytes: int | None = None, sha256: str | None = None) -> Iterator[str]:
    """Yields a local path to a file during a `with` block: of the file itself if it is local, else of a copy.

    The copy is verified if size and digest are given.

    Raises:
      ResourceError: the disk is too small for a copy.
      BadDataError: the copy's size or digest differs.
      JobError: storage fails.
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
            f"{mib(size_bytes)} MiB of shards must be copied, and {mib(free)} MiB are free",
            place=folder,
            next_step="Free some space, or use more workers, of which each copies its own part of the training shards",
        )


def mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):,.1f}"
