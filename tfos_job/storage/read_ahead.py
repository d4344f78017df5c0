"""A thread for each open HDFS file, which reads ahead or writes behind while the caller works.

hdfs-native's calls may never return, so these threads alone make them; callers wait for a thread, with a time limit,
and react to Ctrl-C. One thread a file instead of one a call keeps a stream as fast as hdfs-native itself
(benchmarks/README.md). A thread whose call hangs ends with the process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from tfos_job.storage.retry import bounded

_BLOCK_BYTES = 1 << 19
_MAX_BLOCKS = 4  # queued for each file

Blocks = queue.Queue[Any]


class ReadAhead:
    """The chunks of an iterator, read before the caller asks for them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._blocks: Blocks = queue.Queue(_MAX_BLOCKS)
        self._stop = threading.Event()
        # The thread has no reference to this object, so that the object can be collected and stop the thread.
        threading.Thread(target=_read, args=(chunks, self._blocks, self._stop), name="hdfs read", daemon=True).start()

    def next(self, timeout_s: float) -> list[bytes]:
        """Returns the next chunks; none at the end. Raises the iterator's exception, or TimeoutError."""
        timeout_s = bounded(timeout_s)
        try:
            block = self._blocks.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"no answer for {timeout_s:.0f} s") from None
        if isinstance(block, BaseException):
            raise block
        return block

    def stop(self) -> None:
        self._stop.set()
        _empty(self._blocks)  # wakes a thread that waits for room in the queue


def _read(chunks: Iterator[bytes], blocks: Blocks, stop: threading.Event) -> None:
    try:
        block, num_bytes = [], 0
        for chunk in chunks:
            if stop.is_set():
                return
            block.append(chunk)
            num_bytes += len(chunk)
            if num_bytes >= _BLOCK_BYTES:
                blocks.put(block)
                block, num_bytes = [], 0
        if block:
            blocks.put(block)
        blocks.put([])
    except BaseException as error:  # noqa: BLE001  # raised in the caller's thread
        blocks.put(error)


class WriteBehind:
    """A file that a thread writes and closes. After an error all further calls raise it."""

    def __init__(self, file: Any) -> None:
        self._blocks: Blocks = queue.Queue(_MAX_BLOCKS)
        self._end = _WriterEnd()
        threading.Thread(target=_write, args=(file, self._blocks, self._end), name="hdfs write", daemon=True).start()

    def put(self, data: bytes, timeout_s: float) -> None:
        """Queues bytes. Raises the error of an earlier write, or TimeoutError if the queue stays full."""
        if self._end.error is not None:
            raise self._end.error
        timeout_s = bounded(timeout_s)
        try:
            self._blocks.put(data, timeout=timeout_s)
        except queue.Full:
            raise self._give_up(timeout_s) from None

    def finish(self, timeout_s: float) -> None:
        """Waits until all bytes are written and the file is closed."""
        if self._end.reached.is_set():
            if self._end.error is not None:
                raise self._end.error
            return
        self.put(b"", timeout_s)
        timeout_s = bounded(timeout_s)
        if not self._end.reached.wait(timeout_s):
            raise self._give_up(timeout_s)
        if self._end.error is not None:
            raise self._end.error

    def _give_up(self, timeout_s: float) -> BaseException:
        self._end.error = TimeoutError(f"no answer for {timeout_s:.0f} s")
        _empty(self._blocks)
        self._blocks.put(b"")
        return self._end.error


class _WriterEnd:
    """The end of a writing thread, and its error."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.error: BaseException | None = None


def _write(file: Any, blocks: Blocks, end: _WriterEnd) -> None:
    try:
        while end.error is None and (data := blocks.get()):
            file.write(data)
        if end.error is None:
            file.close()
    except BaseException as error:  # noqa: BLE001  # raised at the caller's next write
        end.error = end.error or error
    if end.error is not None:
        _empty(blocks)  # the caller may wait for room in the queue
    end.reached.set()


def _empty(blocks: Blocks) -> None:
    try:
        while True:
            blocks.get_nowait()
    except queue.Empty:
        pass
