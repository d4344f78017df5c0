"""What a file system must be able to do for `tfos_job.storage`, and what it says of a name."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

BUFFER_BYTES = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One name in a folder. `path` is the folder as it was given, joined with `name`; `mtime_s` is Unix time.

    `special` says what it is where it is neither a file nor a folder: reading it may fail, or never end.
    """

    name: str
    path: str
    size_bytes: int
    mtime_s: float
    is_dir: bool
    special: str = ""


def last_name(path: str) -> str:
    """The name of a file or folder in its folder."""
    return path.rstrip("/").rpartition("/")[2]


class Backend(Protocol):
    """A file system. Each function raises OSError or RuntimeError, or a JobError where it knows better."""

    def open_read(self, path: str) -> io.RawIOBase: ...
    def create(self, new_path: Callable[[], str]) -> io.RawIOBase:
        """A file to write, under the last name that `new_path` gave: each try takes another one."""

    def sync(self, raw: io.RawIOBase) -> None: ...
    def stat(self, path: str) -> Entry: ...
    def list(self, path: str) -> list[Entry]: ...
    def make_dirs(self, path: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def replace(self, source: str, target: str) -> None: ...
    def move_new_file(self, source: str, target: str) -> None: ...
    def move_dir(self, source: str, target: str) -> None: ...

    def discard(self, path: str) -> None:
        """Removes what a failed write left, where that is quickly done."""

    def persist(self, attempt: Callable[[], T]) -> T:
        """Makes an attempt, and others while it fails with what passes. It raises OSError, RuntimeError or JobError."""
