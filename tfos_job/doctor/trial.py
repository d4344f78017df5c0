"""A trial of the file system that a run is to live on: write, rename, read back, and clean up."""

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
    """What came of it.

    Attributes:
      place: the folder it was tried in.
      seconds: from the first call to the last byte read back.
      clock_offset_s: how far, at least, the file system's clock (the NameNode's) is ahead of this host's.
      error: empty where all went well; `next_step` and `exit_code` are the error's.
    """

    place: str
    seconds: float
    clock_offset_s: float | None = None
    error: str = ""
    next_step: str = ""
    exit_code: int = 0


def existing_folder(path: str) -> str:
    """`path`, or the nearest folder above it that exists: who may write there may make the rest.

    Raises:
      MissingInputError: a file lies where a folder should.
      JobError: it cannot be looked at.
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
      token: of this examination; all its processes share the folder, which the driver removes (`sweep`).
      name: of this process, so that no two have the same file.
      timeout_s: how long it may take before that is the error.
    """
    began_s = time.monotonic()

    def work() -> float:
        with storage.within(timeout_s):
            return _write_and_read(_folder(place, token), name)

    try:
        # Storage's own limit is not enough: a local path may be a network disk that hangs.
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
        # That was between the two times: where the file system's clock says so as well, nothing speaks against it.
        return written_s - min(max(written_s, before_s), after_s)
    finally:
        _remove_quietly(path, f"{path}.new")


def sweep(place: str, token: str) -> None:
    """Removes what an examination left in `place`, tasks that were cancelled included. Never raises."""

    def work() -> None:
        with storage.within(_CLEANUP_LIMIT_S):
            try:
                storage.discard_dir(_folder(place, token))
            except JobError:
                pass  # the trial itself has said what is wrong

    with contextlib.suppress(TimeoutError):
        within(2 * _CLEANUP_LIMIT_S, work, "doctor-sweep")


def _remove_quietly(*paths: str) -> None:
    """The first error is the one to tell, and the folder is swept in the end."""
    for path in paths:
        try:
            storage.remove(path)
        except JobError:
            pass


def _failed(place: str, seconds: float, error: JobError) -> Trial:
    # Without the file's own name: the same failure of many processes shall read the same.
    return Trial(
        place=place,
        seconds=seconds,
        error=f"{place}: {error.fact}",
        next_step=error.next_step,
        exit_code=error.exit_code,
    )
