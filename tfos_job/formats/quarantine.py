"""Bytes of source files that could not be read, and the files of a split that list them."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from tfos_job.layout import QUARANTINE

_MAX_NAME_BYTES = 200  # a file system takes 255, and while it is written a name has 43 more
_MAX_PATH_BYTES = 2000


class BadRange(NamedTuple):
    """The bytes `start` to `end` (exclusive) of a source that could not be read. An empty file's range is empty."""

    source: str
    start: int
    end: int
    reason: str


def quarantine_file(source_name: str) -> str:
    """The path below a split's folder of the file that lists the unreadable bytes of a source.

    It has the source's own name unless that cannot be a file's name: it may be too long with what is added, a folder
    `1.png.json` would be in the way of the file for `1.png`, and one that ends with `.tmp` would pass for a leftover.
    """
    *folders, name = source_name.split("/")
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in (*folders, name)]
    is_plain = not {"", ".", ".."}.intersection((*folders, name))  # an archive may name its members as it likes
    is_plain = is_plain and max(sizes) <= _MAX_NAME_BYTES and sum(sizes) <= _MAX_PATH_BYTES
    if not is_plain or any(folder.endswith((".json", ".tmp")) for folder in folders):
        name = hashlib.sha256(source_name.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{QUARANTINE}/{name}.json"
    return f"{QUARANTINE}/{source_name}.json"
