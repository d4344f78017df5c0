"""HDFS by hdfs-native, without a JVM: `hdfs://` and `viewfs://`.

Calls are bounded in time; those on names, and whole attempts given to `persist`, are repeated. Renames are the client's
own: fsspec's generic `mv` moves a folder *into* an existing one.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable
from typing import Any, cast

from tfos_job.errors import JobError
from tfos_job.layout import join
from tfos_job.storage import patience
from tfos_job.storage.backend import Entry, T, last_name
from tfos_job.storage.failures import job_errors, reason, rpc_error
from tfos_job.storage.hdfs_client import connect


class Hdfs:
    """The file system that a URL names."""

    def __init__(self, url: str) -> None:
        with job_errors(url, "reach"):
            file_system = connect(url)
        self._client = file_system.client
        self._path = file_system.path

    def open_read(self, path: str) -> io.RawIOBase:
        return _HdfsFile(self._call(lambda: self._client.read(self._path(path))))

    def create(self, path: str) -> io.RawIOBase:
        from hdfs_native import WriteOptions

        options = WriteOptions(overwrite=False, create_parent=False)  # a discarded folder must not come back
        return _HdfsFile(_answer(lambda: self._client.create(self._path(path), options)))

    def sync(self, raw: io.RawIOBase) -> None:
        """Nothing to do: closing the file completes it on the DataNodes."""

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


class _HdfsFile(io.RawIOBase):
    """hdfs-native's reader or writer, each call bounded in time. After one that failed the others fail with it.

    hdfs-native's reader has no `readinto`, so nothing of io may be put over it but `Guarded`.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._error: OSError | RuntimeError | None = None

    def _ask(self, call: Callable[[], T]) -> T:
        if self._error is not None:
            raise self._error
        # Where the whole can be tried again, a call that hangs (a close does, with a DataNode that died unnoticed)
        # must leave time for it.
        timeout_s = patience.HDFS_TIMEOUT_S / (4 if patience.can_be_repeated() else 1)
        try:
            return _answer(call, timeout_s)
        except (OSError, RuntimeError) as error:
            self._error = error
            # hdfs-native's writer closes itself when it is collected, which may be anywhere and wait for ever.
            self._file.close = lambda: None
            raise

    def readable(self) -> bool:
        return hasattr(self._file, "read_range")

    def writable(self) -> bool:
        return not self.readable()

    def seekable(self) -> bool:
        return self.readable()

    def read(self, size: int = -1, /) -> bytes:
        return self._ask(lambda: cast(bytes, self._file.read(size)))

    def write(self, data: Any, /) -> int:
        # As bytes: hdfs-native takes a memoryview, which BufferedWriter hands down, at a quarter of the speed.
        return self._ask(lambda: cast(int, self._file.write(bytes(data))))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return cast(int, self._file.tell())

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._ask(self._file.close)


def _answer(call: Callable[[], T], timeout_s: float | None = None) -> T:
    try:
        return patience.answer(call, timeout_s)
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
