"""A thread beside each open HDFS file that reads ahead, or writes behind, while the caller works.

hdfs-native's calls may never return, so nobody waits for them but these threads; callers wait here, for as long as
they have patience, and hear Ctrl-C. One thread a file rather than one a call, and no waiting for each other, is what
makes a stream as fast as hdfs-native alone (benchmarks/README.md). A thread whose call hangs ends with the process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from tfos_job.storage.retry import bounded

_BLOCK_BYTES = 1 << 19
_MAX_BLOCKS = 4  # on their way, for each file

Blocks = queue.Queue[Any]


class ReadAhead:
    """What an iterator yields, taken from it before it is asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._blocks: Blocks = queue.Queue(_MAX_BLOCKS)
        self._stop = threading.Event()
        # The thread knows nothing of this object, so that one which nobody holds any more can stop it.
        threading.Thread(target=_read, args=(chunks, self._blocks, self._stop), name="hdfs read", daemon=True).start()

    def next(self, timeout_s: float) -> list[bytes]:
        """The next chunks; none at the end. Raises what the iterator raised, or TimeoutError."""
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
        _empty(self._blocks)  # a thread that waits for room goes on and sees that it is to stop


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
    except BaseException as error:  # noqa: BLE001  # raised in the thread that asks
        blocks.put(error)


class WriteBehind:
    """A file that is written, and closed, by a thread. After what failed, all that follows fails with it."""

    def __init__(self, file: Any) -> None:
        self._blocks: Blocks = queue.Queue(_MAX_BLOCKS)
        self._end = _End()
        threading.Thread(target=_write, args=(file, self._blocks, self._end), name="hdfs write", daemon=True).start()

    def put(self, data: bytes, timeout_s: float) -> None:
        """Raises what an earlier write raised, or TimeoutError where there is no room in time."""
        if self._end.error is not None:
            raise self._end.error
        timeout_s = bounded(timeout_s)
        try:
            self._blocks.put(data, timeout=timeout_s)
        except queue.Full:
            raise self._give_up(timeout_s) from None

    def finish(self, timeout_s: float) -> None:
        """Waits until all is written and the file is closed."""
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


class _End:
    """How a writing thread ended."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.error: BaseException | None = None


def _write(file: Any, blocks: Blocks, end: _End) -> None:
    try:
        while end.error is None and (data := blocks.get()):
            file.write(data)
        if end.error is None:
            file.close()
    except BaseException as error:  # noqa: BLE001  # raised in the thread that writes next
        end.error = end.error or error
    if end.error is not None:
        _empty(blocks)  # somebody may wait for room
    end.reached.set()


def _empty(blocks: Blocks) -> None:
    try:
        while True:
            blocks.get_nowait()
    except queue.Empty:
        pass
