"""Streams that hash and count the bytes that pass through them."""

from __future__ import annotations

import hashlib
import shutil
from typing import BinaryIO

from tfos_job.storage import BUFFER_BYTES, Readable


class _Hashing:
    """The SHA-256 and the number of the bytes so far."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of what has passed."""
        return self._hash.hexdigest()

    def _note(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size_bytes += len(data)


class HashingWriter(_Hashing):
    """Passes on what is written. It has no `seek` and no `tell`, so zipfile never goes back in it."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, data: bytes | memoryview, /) -> int:
        self._note(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()


def copy(path: str, stream: BinaryIO) -> HashingWriter:
    """Copies a local file into a stream; returns what has passed."""
    copied = HashingWriter(stream)
    with open(path, "rb") as file:
        shutil.copyfileobj(file, copied, BUFFER_BYTES)
    return copied


class HashingReader(_Hashing):
    """Passes on what is read."""

    def __init__(self, stream: Readable) -> None:
        super().__init__()
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._note(data)
        return data
