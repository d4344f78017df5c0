"""The threads beside open HDFS files, over iterators and files that do what hdfs-native's may do: fail, or hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.storage import retry
from tfos_job.storage.read_ahead import ReadAhead, WriteBehind

MIB = bytes(1 << 20)


def read_all(ahead: ReadAhead) -> list[bytes]:
    found = []
    while chunks := ahead.next(PATIENCE_S):
        found += chunks
    return found


def test_all_chunks_come_in_their_order() -> None:
    chunks = [number.to_bytes(4, "big") * 20_000 for number in range(100)]
    assert read_all(ReadAhead(iter(chunks))) == chunks
    assert read_all(ReadAhead(iter([]))) == []


def test_what_a_reader_raises_comes_after_what_it_read() -> None:
    def broken() -> Iterator[bytes]:
        yield MIB
        raise OSError("the DataNode is gone")

    ahead = ReadAhead(broken())
    assert ahead.next(PATIENCE_S) == [MIB]
    with pytest.raises(OSError, match="the DataNode is gone"):
        ahead.next(PATIENCE_S)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs waits for it, until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def hung(gate: threading.Event) -> Iterator[bytes]:
    gate.wait()
    yield b""


def test_a_reader_that_hangs_is_given_up(gate: threading.Event) -> None:
    with pytest.raises(TimeoutError, match="no answer for 0 s"):
        ReadAhead(hung(gate)).next(0.2)


def test_a_reader_that_is_stopped_takes_no_more_and_ends_its_thread() -> None:
    taken = []

    def endless() -> Iterator[bytes]:
        while True:
            taken.append(threading.current_thread())
            yield MIB

    ahead = ReadAhead(endless())
    assert ahead.next(PATIENCE_S) == [MIB]
    wait_until(lambda: len(taken) >= 6)  # all the room there is
    ahead.stop()
    wait_until(lambda: not taken[0].is_alive())
    assert len(taken) < 10


def put_many(behind: WriteBehind, timeout_s: float) -> None:
    """More than there is room for."""
    for _ in range(10):
        behind.put(MIB, timeout_s)


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
        behind.put(block, PATIENCE_S)
    behind.finish(PATIENCE_S)
    assert written == blocks
    assert file.is_closed
    behind.finish(PATIENCE_S)


def test_what_a_writer_raises_ends_the_next_calls_and_nothing_is_completed() -> None:
    def write(data: bytes) -> None:
        raise OSError("the quota is full")

    file = File(write)
    behind = WriteBehind(file)
    with pytest.raises(OSError, match="the quota is full"):
        put_many(behind, PATIENCE_S)
    for _ in range(2):
        with pytest.raises(OSError, match="the quota is full"):
            behind.finish(PATIENCE_S)
    assert not file.is_closed


def test_a_writer_that_hangs_is_given_up_and_never_completes_the_file(gate: threading.Event) -> None:
    threads = []

    def write(data: bytes) -> None:
        threads.append(threading.current_thread())
        gate.wait()

    file = File(write)
    behind = WriteBehind(file)
    with pytest.raises(TimeoutError, match="no answer for 0 s") as given_up:
        put_many(behind, 0.2)
    with pytest.raises(TimeoutError) as again:
        behind.finish(PATIENCE_S)
    assert again.value is given_up.value
    gate.set()
    wait_until(lambda: not threads[0].is_alive())
    assert len(threads) == 1
    assert not file.is_closed


def test_within_a_repeated_attempt_a_wait_ends_with_its_limit(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    monkeypatch.setattr(retry, "HDFS_TIMEOUT_S", 0.2)
    with pytest.raises(TimeoutError, match="no answer for 0 s"):
        retry.persist(lambda: ReadAhead(hung(gate)).next(PATIENCE_S))
