"""The raw stream between a backend's file and the caller's buffer."""

from __future__ import annotations

import io
import os
from typing import Any, cast

from tfos_job.storage.backend import BUFFER_BYTES
from tfos_job.storage.error_mapping import job_errors


class Guarded(io.RawIOBase):
    """A raw stream whose reads and writes raise JobErrors. The buffer above it keeps the number of calls low."""

    def __init__(self, raw: io.RawIOBase, path: str) -> None:
        self._raw = raw
        self._path = path

    def readable(self) -> bool:
        return self._raw.readable()

    def writable(self) -> bool:
        return self._raw.writable()

    def seekable(self) -> bool:
        return self._raw.seekable()

    def readall(self) -> bytes:  # RawIOBase's own reads 8 KiB at a time
        return b"".join(iter(lambda: self.read(BUFFER_BYTES) or b"", b""))

    def readinto(self, buffer: Any) -> int:
        with job_errors(self._path, "read"):
            return cast(int, self._raw.readinto(buffer))

    def write(self, data: Any) -> int:
        with job_errors(self._path, "write"):
            return self._raw.write(data) or 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with job_errors(self._path, "read"):
            self._raw.seek(offset, whence)
            return self._raw.tell()

    def tell(self) -> int:
        return self._raw.tell()

    def close(self) -> None:
        if not self.closed:
            with job_errors(self._path, "close"):
                self._raw.close()
        super().close()
