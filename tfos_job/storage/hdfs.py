"""HDFS by hdfs-native, without a JVM: `hdfs://` and `viewfs://`.

Calls are bounded in time; those on names, and whole attempts given to `persist`, are repeated. Renames are the client's
own: fsspec's generic `mv` moves a folder *into* an existing one.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

from tfos_job.errors import JobError
from tfos_job.layout import join
from tfos_job.storage import patience
from tfos_job.storage.backend import Entry, T, last_name
from tfos_job.storage.failures import job_errors, reason, rpc_error
from tfos_job.storage.hdfs_client import connect
from tfos_job.storage.pump import ReadAhead, WriteBehind


class Hdfs:
    """The file system that a URL names."""

    def __init__(self, url: str) -> None:
        with job_errors(url, "reach"):
            file_system = connect(url)
        self._client = file_system.client
        self._path = file_system.path

    def open_read(self, path: str) -> io.RawIOBase:
        return _Reader(self._call(lambda: self._client.read(self._path(path))))

    def create(self, path: str) -> io.RawIOBase:
        from hdfs_native import WriteOptions

        options = WriteOptions(overwrite=False, create_parent=False)  # a discarded folder must not come back
        return _Writer(_answer(lambda: self._client.create(self._path(path), options)))

    def sync(self, raw: io.RawIOBase) -> None:
        cast(_Writer, raw).finish()

    def stat(self, path: str) -> Entry:
        return _entry(path, self._call(lambda: self._client.get_file_info(self._path(path))))

    def list(self, path: str) -> list[Entry]:
        if not self.stat(path).is_dir:
            raise NotADirectoryError(path)
        found = self._call(lambda: list(self._client.list_status(self._path(path))))
        return [_entry(join(path, last_name(status.path)), status) for status in found]

    def make_dirs(self, path: str) -> None:
        self._call(lambda: self._client.mkdirs(self._path(path), create_parent=True))

    def remove(self, path: str) -> None:
        self._call(lambda: self._client.delete(self._path(path), True))

    def replace(self, source: str, target: str) -> None:
        self._move(source, target, overwrite=True)

    def move_new_file(self, source: str, target: str) -> None:
        self._move(source, target, overwrite=False)

    def move_dir(self, source: str, target: str) -> None:
        self._move(source, target, overwrite=False)

    def discard(self, path: str) -> None:
        """Goes on aside where the NameNode is away, until it answers or the patience is at an end."""

        def remove() -> None:
            with contextlib.suppress(OSError, RuntimeError, JobError):
                self.remove(path)

        remover = threading.Thread(target=remove, name="hdfs discard", daemon=True)
        remover.start()
        remover.join(patience.CLEANUP_TIMEOUT_S)

    def persist(self, attempt: Callable[[], T]) -> T:
        return patience.persist(attempt)

    def _call(self, call: Callable[[], T]) -> T:
        return patience.persist(lambda: _answer(call))

    def _move(self, source: str, target: str, *, overwrite: bool) -> None:
        """Renames. A rename whose answer was lost is known by the file's own time and size at the target."""
        here, there = self._path(source), self._path(target)
        before = self.stat(source)

        def attempt() -> None:
            try:
                self._client.rename(here, there, overwrite=overwrite)
            except FileNotFoundError:
                after = _entry(source, self._client.get_file_info(there))
                if after != before:
                    raise

        self._call(attempt)


def _entry(path: str, status: Any) -> Entry:
    return Entry(last_name(path), path, status.length, status.modification_time / 1000, status.isdir)


class _Reader(io.RawIOBase):
    """Reads from one stream over the rest of the file: each `read` of hdfs-native's would ask the DataNode anew."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._position = 0
        self._ahead: ReadAhead | None = None
        self._chunks: deque[memoryview] = deque()  # from `_position` on
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
        """Waits for more; False at the end of the file. After what failed, all that follows fails with it."""
        if self._error is not None:
            raise self._error
        if self._at_end:
            return False
        try:
            with _exact_errors():
                if self._ahead is None:
                    length = max(0, len(self._file) - self._position)
                    stream = self._file.read_range_stream(self._position, length) if length else iter(())
                    self._ahead = ReadAhead(stream)
                self._chunks.extend(map(memoryview, self._ahead.next(patience.call_timeout_s())))
        except (OSError, RuntimeError) as error:
            self._error = error
            raise
        self._at_end = not self._chunks
        return not self._at_end

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._file)}[whence]
        self._forget()
        self._position = max(0, begin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._forget()
        super().close()

    def _forget(self) -> None:
        if self._ahead is not None:
            self._ahead.stop()
        self._ahead, self._at_end = None, False
        self._chunks.clear()


class _Writer(io.RawIOBase):
    def __init__(self, file: Any) -> None:
        self._behind = WriteBehind(file)

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        # As bytes: hdfs-native takes a memoryview, which BufferedWriter hands down, at a quarter of the speed.
        with _exact_errors():
            self._behind.put(bytes(data), patience.call_timeout_s())
        return len(data)

    def finish(self) -> None:
        """Completes the file on the DataNodes."""
        with _exact_errors():
            self._behind.finish(patience.call_timeout_s())

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.finish()


def _answer(call: Callable[[], T]) -> T:
    with _exact_errors():
        return patience.answer(call)


@contextlib.contextmanager
def _exact_errors() -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # raised again, some by another name
        exact = _more_exact(error)
        if exact is error:
            raise
        raise exact from error


def _more_exact(error: BaseException) -> BaseException:
    """The exception that a local file system would have raised, where hdfs-native has only words for it."""
    if isinstance(error, FileNotFoundError) and str(error).startswith("Path is not a file"):
        return IsADirectoryError(reason(error))
    answered = rpc_error(error)
    if answered and answered[0] == "ParentNotDirectoryException":
        return NotADirectoryError(answered[1])
    if type(error).__name__ == "PanicException":  # an assert of hdfs-native's own, which is no Exception
        return RuntimeError(f"Panic({error})")
    return error
