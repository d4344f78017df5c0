"""The threads beside open HDFS files, over iterators and files that do what hdfs-native's may do: fail, or hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tfos_job.storage import patience
from tfos_job.storage.pump import ReadAhead, WriteBehind

MIB = bytes(1 << 20)


def read_all(ahead: ReadAhead) -> list[bytes]:
    found = []
    while chunks := ahead.next(5):
        found += chunks
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_all_chunks_come_in_their_order() -> None:
    chunks = [number.to_bytes(4, "big") * 20_000 for number in range(100)]
    assert read_all(ReadAhead(iter(chunks))) == chunks
    assert read_all(ReadAhead(iter([]))) == []


def test_what_a_reader_raises_comes_after_what_it_read() -> None:
    def broken() -> Iterator[bytes]:
        yield MIB
        raise OSError("the DataNode is gone")

    ahead = ReadAhead(broken())
    assert ahead.next(5) == [MIB]
    with pytest.raises(OSError, match="the DataNode is gone"):
        ahead.next(5)


def test_a_reader_that_hangs_is_given_up_in_time() -> None:
    gate = threading.Event()

    def hung() -> Iterator[bytes]:
        gate.wait(10)
        yield b""

    begun_s = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer for 0 s"):
        ReadAhead(hung()).next(0.2)
    assert time.monotonic() - begun_s < 2
    gate.set()


def test_a_reader_that_is_stopped_takes_no_more_and_ends_its_thread() -> None:
    taken = []

    def endless() -> Iterator[bytes]:
        while True:
            taken.append(threading.current_thread())
            yield MIB

    ahead = ReadAhead(endless())
    assert ahead.next(5) == [MIB]
    wait_until(lambda: len(taken) >= 6)  # all the room there is
    ahead.stop()
    wait_until(lambda: not taken[0].is_alive())
    assert len(taken) < 10


def put_many(behind: WriteBehind) -> None:
    """More than there is room for."""
    for _ in range(10):
        behind.put(MIB, 0.2)
        time.sleep(0.02)


class File:
    """A file to write to."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_what_is_written_is_there_in_order_once_it_is_finished() -> None:
    written: list[bytes] = []
    file = File(written.append)
    behind = WriteBehind(file)
    blocks = [number.to_bytes(4, "big") for number in range(50)]
    for block in blocks:
        behind.put(block, 5)
    behind.finish(5)
    assert written == blocks
    assert file.is_closed
    behind.finish(5)


def test_what_a_writer_raises_ends_the_next_calls_and_nothing_is_completed() -> None:
    def write(data: bytes) -> None:
        raise OSError("the quota is full")

    file = File(write)
    behind = WriteBehind(file)
    with pytest.raises(OSError, match="the quota is full"):
        put_many(behind)
    for _ in range(2):
        with pytest.raises(OSError, match="the quota is full"):
            behind.finish(5)
    file.close()  # as its collection would
    assert not file.is_closed


def test_a_writer_that_hangs_is_given_up_in_time_and_never_completes_the_file() -> None:
    gate = threading.Event()
    threads = []

    def write(data: bytes) -> None:
        threads.append(threading.current_thread())
        gate.wait(10)

    file = File(write)
    behind = WriteBehind(file)
    begun_s = time.monotonic()
    with pytest.raises(TimeoutError):
        put_many(behind)
    with pytest.raises(TimeoutError):
        behind.finish(0.2)
    assert time.monotonic() - begun_s < 3
    gate.set()
    wait_until(lambda: not threads[0].is_alive())
    assert len(threads) == 1
    assert not file.is_closed


def test_within_a_repeated_attempt_a_wait_ends_with_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HDFS_TIMEOUT_S", 0.2)
    begun_s = time.monotonic()
    gate = threading.Event()

    def hung() -> Iterator[bytes]:
        gate.wait(10)
        yield b""

    with pytest.raises(TimeoutError):
        patience.persist(lambda: ReadAhead(hung()).next(60))
    assert time.monotonic() - begun_s < 2
    gate.set()
