"""The part of a GNT file that is in memory while it is read."""

from __future__ import annotations

import hashlib

from tfos_job.formats.gnt import HEADER
from tfos_job.storage import Readable

BUFFER_BYTES = 1 << 20


class Window:
    """The part of a stream that is in memory. Positions given to its methods count from `offset`.

    `digest` is of all that was skipped.
    """

    def __init__(self, stream: Readable, offset: int) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0
        self.offset = offset
        self.digest = hashlib.sha256()

    def available(self, size: int) -> int:
        """Reads until `size` bytes are there. Returns how many are: fewer only at the end of the file."""
        have = len(self._data) - self._at
        if have >= size:
            return have
        parts = [self._data[self._at :]]
        while have < size:
            part = self._stream.read(max(size - have, BUFFER_BYTES))
            if not part:
                break
            parts.append(part)
            have += len(part)
        self._data, self._at = b"".join(parts), 0
        return have

    def cut(self, start: int, end: int) -> bytes:
        return self._data[self._at + start : self._at + end]

    def header(self, start: int) -> tuple[int, bytes, int, int]:
        size, tag, width, height = HEADER.unpack_from(self._data, self._at + start)
        return size, tag, width, height

    def memory(self) -> tuple[bytes, int]:
        """All that is in memory, and the position in it that `offset` is at."""
        return self._data, self._at

    def skip(self, size: int) -> None:
        self.digest.update(memoryview(self._data)[self._at : self._at + size])
        self._at += size
        self.offset += size

    def skip_all(self) -> None:
        while have := self.available(1):
            self.skip(have)
