"""HDFS by hdfs-native, without a JVM: `hdfs://` and `viewfs://`.

Calls are bounded in time; those on names, and whole attempts given to `persist`, are repeated. Renames are the client's
own: fsspec's generic `mv` moves a folder *into* an existing one.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from tfos_job.errors import JobError
from tfos_job.layout import join
from tfos_job.storage import retry
from tfos_job.storage.backend import Entry, T, last_name
from tfos_job.storage.error_mapping import is_of_datanode, job_errors
from tfos_job.storage.hdfs_client import connect
from tfos_job.storage.hdfs_files import Open, Reader, Writer, answer, to_be_closed

_TROUBLE_S = 630.0  # until a NameNode takes a DataNode for dead, by default
_trouble_s: dict[str, float] = {}  # by file system: when a DataNode failed


class Hdfs:
    """The file system that a URL names."""

    def __init__(self, url: str) -> None:
        with job_errors(url, "reach"):
            file_system = connect(url)
        self._client = file_system.client
        self._path = file_system.path
        self._root = file_system.root

    def open_read(self, path: str) -> io.RawIOBase:
        return Reader(path, lambda: self._call(lambda: self._client.read(self._path(path))))

    def create(self, new_path: Callable[[], str]) -> io.RawIOBase:
        return Writer(lambda: self._create(new_path()), self.discard)

    def _create(self, path: str) -> Open:
        """Creates a file, on one DataNode first where one was found dead or hanging in the last minutes.

        The NameNode takes as long to believe it, and names that one for new blocks meanwhile. hdfs-native cannot leave
        it out, and fails where any of a block's DataNodes does. So each try gets a single one, until it is a living
        one; the other copies are ordered when the file is whole.
        """
        from hdfs_native import WriteOptions

        options = WriteOptions(overwrite=False, create_parent=False)  # a discarded folder must not come back
        here = self._path(path)
        num_replicas: int | None = None
        try:
            file = answer(lambda: to_be_closed(self._client.create(here, options)))
            if self._has_trouble():
                with contextlib.suppress(RuntimeError):  # a NameNode need not allow it, as with erasure coding
                    num_replicas = answer(lambda: self._client.get_file_info(here)).replication
                    answer(lambda: self._client.set_replication(here, 1))
        except BaseException:
            self.discard(path)
            raise

        def replicate() -> None:
            if num_replicas is not None:
                self._call(lambda: self._client.set_replication(here, num_replicas))

        return Open(path, file, replicate)

    def _has_trouble(self) -> bool:
        if is_of_datanode(retry.last_failure()):
            _trouble_s[self._root] = time.monotonic()
        return time.monotonic() - _trouble_s.get(self._root, -math.inf) < _TROUBLE_S

    def sync(self, raw: io.RawIOBase) -> None:
        cast(Writer, raw).finish()

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
        remover.join(retry.CLEANUP_TIMEOUT_S)

    def persist(self, attempt: Callable[[], T]) -> T:
        return retry.persist(attempt)

    def _call(self, call: Callable[[], T]) -> T:
        return retry.persist(lambda: answer(call))

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
