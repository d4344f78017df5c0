"""A trial of the file system for a run: write, rename, read back, and clean up."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass

from tfos_job import storage
from tfos_job.errors import JobError, MissingInputError, StorageError
from tfos_job.host.limits import within
from tfos_job.layout import join

PREFIX = "_doctor-"
_CONTENT_BYTES = 64 << 10
_CLEANUP_LIMIT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of a trial.

    Attributes:
      place: folder of the trial.
      seconds: from the first call to the last byte read back.
      clock_offset_s: minimum lead of the file system's clock (the NameNode's) over this host's.
      error: empty after success; `next_step` and `exit_code` belong to the error.
    """

    place: str
    seconds: float
    clock_offset_s: float | None = None
    error: str = ""
    next_step: str = ""
    exit_code: int = 0


def existing_folder(path: str) -> str:
    """Returns `path`, or the nearest parent that exists: a user who may write there can make the rest.

    Raises:
      MissingInputError: a file is in place of a folder.
      JobError: the file system fails.
    """
    while True:
        try:
            entry = storage.stat(path)
        except MissingInputError:
            above = path.rstrip("/").rpartition("/")[0]
            if not above or above.endswith("/"):
                return f"{above}/"  # the root of a disk, or of `hdfs:///`
            path = above
            continue
        if entry.is_dir:
            return path
        raise MissingInputError("a file, not a folder", place=path, next_step="Check the path")


def _folder(place: str, token: str) -> str:
    return f"{place}{'' if place.endswith('/') else '/'}{PREFIX}{token}"


def attempt(place: str, token: str, name: str, timeout_s: float) -> Trial:
    """Writes a file in `place`/_doctor-`token`, renames it, reads it back and removes it. Never raises.

    Args:
      place: a folder that exists.
      token: of this examination; all its processes share the folder, and the driver removes it (`sweep`).
      name: of this process; unique, so that each process has a file of its own.
      timeout_s: time limit; exceeding it is an error.
    """
    began_s = time.monotonic()

    def work() -> float:
        with storage.within(timeout_s):
            return _write_and_read(_folder(place, token), name)

    try:
        # The time limit of storage does not cover a local path, which may be a network disk that hangs.
        offset_s = within(timeout_s + _CLEANUP_LIMIT_S, work, "doctor-trial")
        return Trial(place=place, seconds=time.monotonic() - began_s, clock_offset_s=offset_s)
    except JobError as e:
        error = e
    except TimeoutError:
        error = StorageError(f"no answer for {timeout_s:g} s", place=place, next_step="Check the file system")
    return _failed(place, time.monotonic() - began_s, error)


def _write_and_read(folder: str, name: str) -> float:
    content = os.urandom(_CONTENT_BYTES)
    path = join(folder, name)
    storage.make_dirs(folder)
    try:
        before_s = time.time()
        storage.write_bytes(f"{path}.new", content)
        after_s = time.time()
        storage.rename(f"{path}.new", path)
        if storage.read_bytes(path) != content:
            raise StorageError("read back, the file is not what was written", place=path)
        written_s = storage.stat(path).mtime_s
        # The file was written between the two times; a file system time between them means an offset of 0.
        return written_s - min(max(written_s, before_s), after_s)
    finally:
        _remove_quietly(path, f"{path}.new")


def sweep(place: str, token: str) -> None:
    """Removes the files of an examination in `place`, including those of cancelled tasks. Never raises."""

    def work() -> None:
        with storage.within(_CLEANUP_LIMIT_S):
            try:
                storage.discard_dir(_folder(place, token))
            except JobError:
                pass  # the trial has reported the error

    with contextlib.suppress(TimeoutError):
        within(2 * _CLEANUP_LIMIT_S, work, "doctor-sweep")


def _remove_quietly(*paths: str) -> None:
    """Removes files without raising: the first error is reported, and `sweep` removes the folder in the end."""
    for path in paths:
        try:
            storage.remove(path)
        except JobError:
            pass


def _failed(place: str, seconds: float, error: JobError) -> Trial:
    # The text omits the file's name, so that the same failure of many processes has one text.
    return Trial(
        place=place,
        seconds=seconds,
        error=f"{place}: {error.fact}",
        next_step=error.next_step,
        exit_code=error.exit_code,
    )
