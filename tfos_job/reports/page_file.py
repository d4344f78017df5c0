"""Pages as files, on every file system that can be written."""

from __future__ import annotations

import time

from tfos_job import __version__, storage


def made() -> str:
    """The line at the foot of a page."""
    return f"Made by tfos_job {__version__} on {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}."


def write(path: str, page: str) -> int:
    """Writes a page, in a folder that need not exist; returns its bytes.

    Raises:
      JobError: the file cannot be written.
    """
    data = page.encode("utf-8")
    folder = path.rpartition("/")[0]
    if folder:
        storage.make_dirs(folder)
    storage.write_bytes(path, data)
    return len(data)
