"""Raw streams over files of hdfs-native, which survive a dead or hanging DataNode, with Python's own exceptions."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tfos_job.errors import JobError, StorageError
from tfos_job.storage import retry
from tfos_job.storage.backend import BUFFER_BYTES, T
from tfos_job.storage.error_mapping import reason, rpc_error
from tfos_job.storage.read_ahead import ReadAhead, WriteBehind

_PROOF_TIMEOUT_S = 15.0  # for the first bytes of a file


def to_be_closed(file: Any) -> Any:
    """Returns the inner file of hdfs-native; its wrapper closes itself at garbage collection and may hang there."""
    file.close = lambda: None
    return file.inner


class HdfsReader(io.RawIOBase):
    """A stream that reads the rest of the file in one request; hdfs-native sends one for each `read` otherwise.

    If a DataNode dies or hangs, hdfs-native continues with another one; if none is left, the file is opened again.
    """

    def __init__(self, path: str, reopen: Callable[[], Any]) -> None:
        self._path = path
        self._reopen = reopen
        self._file = reopen()
        self._length = len(self._file)
        self._position = 0
        self._ahead: ReadAhead | None = None
        self._chunks: deque[memoryview] = deque()  # bytes from `_position` to `_fetched`
        self._fetched = 0
        self._at_end = False
        self._error: BaseException | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target, num_bytes = memoryview(buffer), 0
        while num_bytes < len(target) and (self._chunks or self._fill()):
            chunk = self._chunks.popleft()
            taken = min(len(chunk), len(target) - num_bytes)
            target[num_bytes : num_bytes + taken] = chunk[:taken]
            num_bytes += taken
            if taken < len(chunk):
                self._chunks.appendleft(chunk[taken:])
        self._position += num_bytes
        return num_bytes

    def _fill(self) -> bool:
        """Waits for more bytes; False at the end of the file. After an error all further reads raise it."""
        if self._error is not None:
            raise self._error
        if self._at_end:
            return False
        try:
            chunks = retry.persist(self._fetch)
        except (OSError, RuntimeError, JobError) as error:
            self._error = error
            raise
        self._chunks.extend(map(memoryview, chunks))
        self._fetched += sum(map(len, chunks))
        self._at_end = not chunks
        return not self._at_end

    def _fetch(self) -> list[bytes]:
        """Returns the next chunks; none at the end."""
        try:
            with _exact_errors():
                if self._file is None:
                    self._file = self._reopen()
                    if len(self._file) != self._length:
                        raise StorageError(
                            "replaced by a file of another size while it was read",
                            place=self._path,
                            next_step="Run the command again",
                        )
                if self._ahead is None:
                    length = max(0, self._length - self._fetched)
                    stream = self._file.read_range_stream(self._fetched, length) if length else iter(())
                    self._ahead = ReadAhead(stream)
                chunks = self._ahead.next(retry.call_timeout_s())
        except BaseException:
            self._stop()
            self._file = None
            raise
        retry.progressed(self._fetched + sum(map(len, chunks)))
        return chunks

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._forget()
        self._position = self._fetched = max(0, begin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._forget()
        super().close()

    def _forget(self) -> None:
        self._stop()
        self._at_end = False
        self._chunks.clear()

    def _stop(self) -> None:
        if self._ahead is not None:
            self._ahead.stop()
        self._ahead = None


@dataclass(frozen=True)
class Open:
    """A file during its writing, and `replicate`, called when it is complete."""

    path: str
    file: Any
    replicate: Callable[[], None]


class HdfsWriter(io.RawIOBase):
    """A stream that a thread writes. If the first bytes do not reach the DataNodes, another file is tried.

    Most failures occur there: no block begins with a dead or hanging DataNode. hdfs-native drops one that dies later. A
    small file that its caller can write again needs no such proof.
    """

    def __init__(self, create: Callable[[], Open], discard: Callable[[str], None]) -> None:
        self._create = create
        self._discard = discard
        self._open: Open | None = retry.persist(create)
        self._behind: WriteBehind | None = None
        self._error: BaseException | None = None
        self._num_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if self._error is not None:
            raise self._error
        needs_proof = self._behind is None and not (retry.can_be_repeated() and len(data) < BUFFER_BYTES)
        # As bytes: hdfs-native writes a memoryview, which BufferedWriter passes, at a quarter of the speed.
        data = bytes(data[:BUFFER_BYTES] if needs_proof else data)
        try:
            if needs_proof:
                self._behind = WriteBehind(retry.persist(lambda: self._begin(data)))
            else:
                with _exact_errors():
                    self._writing().put(data, retry.call_timeout_s())
        except BaseException as error:
            self._error = error
            raise
        self._num_bytes += len(data)
        retry.progressed(self._num_bytes)
        return len(data)

    def _begin(self, data: bytes) -> Any:
        """Writes the first bytes and returns the file."""
        path, file = self._opened().path, self._opened().file

        def write() -> None:
            file.write(data)
            try:
                file.hsync()
            except RuntimeError as error:
                if "not supported" not in str(error):  # erasure coding has no hsync
                    raise

        try:
            answer(write, min(_PROOF_TIMEOUT_S, retry.call_timeout_s()))
        except BaseException:
            self._discard(path)
            self._open = None
            raise
        return file

    def finish(self) -> None:
        """Completes the file on the DataNodes."""
        if self._error is not None:
            raise self._error
        with _exact_errors():
            self._writing().finish(retry.call_timeout_s())
        self._opened().replicate()

    def _writing(self) -> WriteBehind:
        if self._behind is None:
            self._behind = WriteBehind(self._opened().file)
        return self._behind

    def _opened(self) -> Open:
        if self._open is None:
            self._open = self._create()
        return self._open

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.finish()


def answer(call: Callable[[], T], timeout_s: float = math.inf) -> T:
    with _exact_errors():
        return retry.answer(call, timeout_s)


@contextlib.contextmanager
def _exact_errors() -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # raised again, some as another class
        exact = _more_exact(error)
        if exact is error:
            raise
        raise exact from error


def _more_exact(error: BaseException) -> BaseException:
    """Returns the exception that a local file system would raise, for those that hdfs-native has in words only."""
    if isinstance(error, FileNotFoundError) and str(error).startswith("Path is not a file"):
        return IsADirectoryError(reason(error))
    answered = rpc_error(error)
    if answered and answered[0] == "ParentNotDirectoryException":
        return NotADirectoryError(answered[1])
    if type(error).__name__ == "PanicException":  # an assert of hdfs-native's own, which is no Exception
        return RuntimeError(f"Panic({error})")
    return error
