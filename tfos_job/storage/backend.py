"""The interface of a file system behind `tfos_job.storage`, and the entry that it returns for a name."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

BUFFER_BYTES = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One name in a folder. `path` is the folder as the caller gave it, joined with `name`; `mtime_s` is Unix time.

    `special` names the kind of an entry that is neither a file nor a folder: reading it may fail, or never end.
    """

    name: str
    path: str
    size_bytes: int
    mtime_s: float
    is_dir: bool
    special: str = ""


def last_name(path: str) -> str:
    """Returns the last component of a path."""
    return path.rstrip("/").rpartition("/")[2]


class Backend(Protocol):
    """A file system. Its methods raise OSError or RuntimeError, or a JobError if they know the cause."""

    def open_read(self, path: str) -> io.RawIOBase: ...
    def create(self, new_path: Callable[[], str]) -> io.RawIOBase:
        """Creates a file to write, named by the last call of `new_path`: each try takes a new name."""

    def sync(self, raw: io.RawIOBase) -> None: ...
    def stat(self, path: str) -> Entry: ...
    def list(self, path: str) -> list[Entry]: ...
    def make_dirs(self, path: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def replace(self, source: str, target: str) -> None: ...
    def move_new_file(self, source: str, target: str) -> None: ...
    def move_dir(self, source: str, target: str) -> None: ...

    def discard(self, path: str) -> None:
        """Removes the file of a failed write, if that takes little time."""

    def persist(self, attempt: Callable[[], T]) -> T:
        """Calls `attempt`, and again while it fails with an error that passes.

        Raises:
          OSError, RuntimeError, JobError: the last error of `attempt`.
        """
