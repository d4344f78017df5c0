"""All that is below a folder, without following a link out of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from tfos_job import storage
from tfos_job.errors import MissingInputError
from tfos_job.layout import printable


class Contents(NamedTuple):
    """What is below a folder.

    Attributes:
      paths: of files and folders, below it, sorted.
      size_bytes: of all files but locks.
      time_s: of the last change of such a file; 0 without one.
      odd: the first path that is neither file nor folder, and what it is; empty if there is none.
    """

    paths: list[str]
    size_bytes: int
    time_s: float
    odd: str


def is_link(path: str) -> bool:
    """True for a symbolic link of a disk; HDFS has none."""
    local = storage.local_path(path)
    return local is not None and os.path.islink(local)


def real(path: str) -> str:
    """The path without links, as far as a disk's; others as they are."""
    local = storage.local_path(path)
    return path if local is None else os.path.realpath(local)


def read(folder: str) -> Contents:
    """Walks through a folder; what others remove meanwhile is left out."""
    paths, size_bytes, time_s, odd = [], 0, 0.0, ""
    for name, entry, is_odd in _walk(folder, ""):
        paths.append(name)
        if is_odd:
            odd = odd or f"{printable(name)} is {entry.special or 'a link'}"
        elif not entry.is_dir and "_lock" not in entry.name:
            size_bytes += entry.size_bytes
            time_s = max(time_s, entry.mtime_s)
    return Contents(sorted(paths), size_bytes, time_s, odd)


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, storage.Entry, bool]]:
    with contextlib.suppress(MissingInputError):
        for entry in storage.list_dir(folder):
            is_odd = bool(entry.special) or is_link(entry.path)
            yield prefix + entry.name, entry, is_odd
            if entry.is_dir and not is_odd:
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
