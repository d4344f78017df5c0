"""Streams that hash and count the bytes that pass through them."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from tfos_job.storage import Readable


class HashingWriter:
    """Passes on what is written. It has no `seek` and no `tell`, so zipfile never goes back in it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of what was written."""
        return self._hash.hexdigest()

    def write(self, data: bytes | memoryview, /) -> int:
        self._hash.update(data)
        self.size_bytes += len(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()


class HashingReader:
    """Passes on what is read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of what was read."""
        return self._hash.hexdigest()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self.size_bytes += len(data)
        return data
