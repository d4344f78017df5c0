"""HDFS through hdfs-native, without a JVM: `hdfs://` and `viewfs://`.

All calls have a time limit. Calls on names and the attempts of `persist` are retried. Renames use the client's own
call: fsspec's generic `mv` moves a folder *into* an existing one.
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
from tfos_job.storage.hdfs_files import HdfsReader, HdfsWriter, Open, answer, to_be_closed

_TROUBLE_S = 630.0  # a NameNode considers a silent DataNode dead after this time, by default
_trouble_s: dict[str, float] = {}  # by file system: time of the last failure of a DataNode


class Hdfs:
    """The file system of a URL."""

    def __init__(self, url: str) -> None:
        with job_errors(url, "reach"):
            file_system = connect(url)
        self._client = file_system.client
        self._path = file_system.path
        self._root = file_system.root
        self._umask = file_system.umask

    def open_read(self, path: str) -> io.RawIOBase:
        return HdfsReader(path, lambda: self._call(lambda: self._client.read(self._path(path))))

    def create(self, new_path: Callable[[], str]) -> io.RawIOBase:
        return HdfsWriter(lambda: self._create(new_path()), self.discard)

    def _create(self, path: str) -> Open:
        """Creates a file; with one replica at first if a DataNode died or hung in the last minutes.

        Until the NameNode considers that DataNode dead, it assigns new blocks to it. hdfs-native cannot exclude a
        DataNode and fails if any one of a block fails. With one replica each try gets a single DataNode, until one of
        them works; the number of replicas is restored when the file is complete.
        """
        from hdfs_native import WriteOptions

        # Do not create a discarded folder again.
        options = WriteOptions(overwrite=False, create_parent=False, permission=0o666 & ~self._umask)
        here = self._path(path)
        num_replicas: int | None = None
        try:
            file = answer(lambda: to_be_closed(self._client.create(here, options)))
            if self._has_trouble():
                with contextlib.suppress(RuntimeError):  # not allowed with erasure coding, for example
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
        cast(HdfsWriter, raw).finish()

    def stat(self, path: str) -> Entry:
        return _entry(path, self._call(lambda: self._client.get_file_info(self._path(path))))

    def list(self, path: str) -> list[Entry]:
        if not self.stat(path).is_dir:
            raise NotADirectoryError(path)
        found = self._call(lambda: list(self._client.list_status(self._path(path))))
        return [_entry(join(path, last_name(status.path)), status) for status in found]

    def make_dirs(self, path: str) -> None:
        self._call(lambda: self._client.mkdirs(self._path(path), 0o777 & ~self._umask, create_parent=True))

    def remove(self, path: str) -> None:
        self._call(lambda: self._client.delete(self._path(path), True))

    def replace(self, source: str, target: str) -> None:
        self._move(source, target, overwrite=True)

    def move_new_file(self, source: str, target: str) -> None:
        self._move(source, target, overwrite=False)

    def move_dir(self, source: str, target: str) -> None:
        self._move(source, target, overwrite=False)

    def discard(self, path: str) -> None:
        """Removes a file; continues in a thread while the NameNode does not answer, up to the retry limit."""

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
        """Renames. If the answer of a rename was lost, the time and size at the target show that it was done."""
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
