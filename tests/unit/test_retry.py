"""How long HDFS is waited for, and files whose DataNodes fail, over objects that do what hdfs-native's may do."""

from __future__ import annotations

import gc
import io
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tfos_job.errors import MissingInputError, StorageError
from tfos_job.storage import error_mapping, hdfs, hdfs_files, retry

MIB = 1 << 20
REFUSED = OSError("Connection refused (os error 111)")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_RETRY_PAUSES_S", (0.0,))


# --- how long --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that moves where a test says so, in the module alone."""
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: clock.now_s, sleep=lambda _: None))
    return clock


def test_a_call_that_makes_progress_may_take_longer_than_the_limit(clock: SimpleNamespace) -> None:
    def copy() -> str:
        for position in range(MIB, 100 * MIB, MIB):
            assert retry.bounded(30.0) == 30.0
            clock.now_s += 25  # a slow disk
            retry.progressed(position)
        return "done"

    assert retry.persist(copy) == "done"


def test_tries_without_progress_share_one_limit(clock: SimpleNamespace) -> None:
    reached = iter([4, 8, 8, 6, 8, 8, 8, 8, 8, 8])  # MiB, before each try fails
    tries: list[float] = []

    def fail() -> None:
        tries.append(clock.now_s)
        for position in range(1, next(reached) + 1):
            clock.now_s += 5
            retry.progressed(position * MIB)
        raise REFUSED

    with pytest.raises(OSError, match="refused"):
        retry.persist(fail)
    # The second one got furthest, at 60 s. The tries end 120 s later, but for the one that is under way.
    assert tries == [0, 20, 60, 100, 130, 170]


def test_within_a_limit_of_ones_own_nothing_is_extended(clock: SimpleNamespace) -> None:
    with retry.within(10.0):
        clock.now_s += 8
        retry.progressed(MIB)
        assert retry.bounded(30.0) == 2.0


# --- reading ---------------------------------------------------------------------------------------------------------


class Remote:
    """A file as hdfs-native's reader shows it; its streams end with an error where they are told to."""

    def __init__(self, content: bytes, fail_at: int | None = None, error: Exception = REFUSED) -> None:
        self.content = content
        self.fail_at = fail_at
        self.error = error

    def __len__(self) -> int:
        return len(self.content)

    def read_range_stream(self, offset: int, length: int) -> Iterator[bytes]:
        for begin in range(offset, offset + length, 1000):
            if self.fail_at is not None and begin + 1000 > self.fail_at:
                raise self.error
            yield self.content[begin : min(begin + 1000, offset + length)]


def reader(*files: Remote | Exception) -> io.BufferedReader:
    coming = iter(files)

    def reopen() -> Remote:
        file = next(coming)
        if isinstance(file, Exception):
            raise file
        return file

    return io.BufferedReader(hdfs_files.HdfsReader("hdfs://host/a", reopen), MIB)


def test_a_reader_goes_on_where_no_datanode_was_left() -> None:
    content = bytes(range(256)) * 20_000
    files = [Remote(content, 700_000), Remote(content, 700_000), Remote(content, 3_000_000), Remote(content)]
    assert reader(*files).read() == content
    stream = reader(*files)
    stream.seek(600_000)
    assert stream.read(2_900_000) == content[600_000:3_500_000]
    assert stream.tell() == 3_500_000


def test_a_reader_tells_what_has_become_of_its_file() -> None:
    content = bytes(100_000)
    with pytest.raises(FileNotFoundError):
        reader(Remote(content, 50_000), FileNotFoundError("/a")).read()
    with pytest.raises(StorageError, match="hdfs://host/a: replaced by a file of another size"):
        reader(Remote(content, 50_000), Remote(content + b"x")).read()


# --- writing ---------------------------------------------------------------------------------------------------------


class Target:
    """A file as hdfs-native's writer shows it, which may fail at its first bytes, later, or when it is closed."""

    def __init__(self, fail: str = "", gate: threading.Event | None = None) -> None:
        self.fail = fail
        self.gate = gate
        self.content = b""

    def _maybe(self, where: str) -> None:
        if self.fail == where:
            if self.gate is not None:
                self.gate.wait()
            raise REFUSED

    def write(self, data: bytes) -> None:
        self._maybe("later" if self.content else "first")
        self.content += data

    def hsync(self) -> None:
        self._maybe("proof")
        if self.fail == "erasure coding":
            raise RuntimeError('OperationFailed("hsync is not supported for erasure-coded files")')

    def close(self) -> None:
        self._maybe("close")


class Written:
    """A writer over files that come one after the other, and what became of them."""

    def __init__(self, *targets: Target) -> None:
        self.targets = targets
        self.discarded: list[str] = []
        self.replicated: list[str] = []
        self._coming = iter(enumerate(targets))
        self.raw = hdfs_files.HdfsWriter(self._create, self.discarded.append)

    def _create(self) -> Any:
        number, target = next(self._coming)
        return hdfs_files.Open(str(number), target, lambda: self.replicated.append(str(number)))


def write_all(written: Written, data: bytes) -> None:
    with io.BufferedWriter(written.raw, MIB) as stream:
        stream.write(data)


@pytest.mark.parametrize("fail", ["first", "proof"])
@pytest.mark.parametrize("hangs", [False, True])
def test_a_file_that_does_not_begin_goes_elsewhere(fail: str, hangs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdfs_files, "_PROOF_TIMEOUT_S", 0.2)
    gate = threading.Event()
    bad = Target(fail, gate if hangs else None)
    written = Written(bad, Target(fail), Target())
    try:
        write_all(written, bytes(range(256)) * 20_000)
    finally:
        gate.set()
    assert written.targets[2].content == bytes(range(256)) * 20_000
    assert written.discarded == ["0", "1"]
    assert written.replicated == ["2"]


def test_erasure_coding_knows_no_proof() -> None:
    written = Written(Target("erasure coding"))
    write_all(written, b"x" * 3 * MIB)
    assert len(written.targets[0].content) == 3 * MIB


def test_what_is_collected_is_not_closed() -> None:
    closed: list[str] = []

    class File(io.RawIOBase):
        inner = Target()

        def close(self) -> None:
            closed.append("by its collection")

    assert hdfs_files.to_be_closed(File()) is File.inner
    gc.collect()
    assert closed == []


@pytest.mark.parametrize("fail", ["later", "close"])
def test_what_fails_later_is_told(fail: str) -> None:
    with pytest.raises(OSError, match="refused"):
        write_all(Written(Target(fail), Target()), bytes(30 * MIB))


def test_where_nothing_begins_it_is_told_once(clock: SimpleNamespace) -> None:
    class Refusing(Target):
        def write(self, data: bytes) -> None:
            clock.now_s += 50
            raise REFUSED

    written = Written(*(Refusing() for _ in range(10)))
    with pytest.raises(OSError, match="refused"):
        write_all(written, bytes(2 * MIB))
    assert written.discarded == ["0", "1", "2"]


def test_a_small_file_is_tried_again_as_a_whole() -> None:
    files = [Target("close"), Target("first"), Target()]
    coming = iter(files)

    def attempt() -> None:
        raw = hdfs_files.HdfsWriter(lambda: hdfs_files.Open("a", next(coming), lambda: None), lambda _: None)
        with io.BufferedWriter(raw, MIB) as stream:
            stream.write(b"x")

    retry.persist(attempt)
    assert files[2].content == b"x"


# --- which DataNodes -------------------------------------------------------------------------------------------------


def test_after_a_datanode_has_failed_files_begin_on_a_single_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdfs, "_trouble_s", {})
    orders: list[int] = []
    client = SimpleNamespace(
        create=lambda path, options: SimpleNamespace(inner=Target("close" if not orders and len(tries) == 1 else "")),
        get_file_info=lambda path: SimpleNamespace(replication=3),
        set_replication=lambda path, number: orders.append(number),
    )
    file_system = SimpleNamespace(
        client=client, path=lambda url: url.removeprefix("hdfs://host"), root="hdfs://host", umask=0o022
    )
    monkeypatch.setattr(hdfs, "connect", lambda url: file_system)
    tries: list[int] = []

    def attempt() -> None:
        tries.append(1)
        raw = hdfs.Hdfs("hdfs://host/a").create(lambda: "hdfs://host/_a")
        with io.BufferedWriter(raw, MIB) as stream:
            stream.write(b"x")

    retry.persist(attempt)
    assert (len(tries), orders) == (2, [1, 3])
    retry.persist(attempt)  # some minutes later, too
    assert (len(tries), orders) == (3, [1, 3, 1, 3])
    monkeypatch.setattr(hdfs, "_trouble_s", {"hdfs://host": time.monotonic() - hdfs._TROUBLE_S - 1})
    retry.persist(attempt)
    assert (len(tries), orders) == (4, [1, 3, 1, 3])


@pytest.mark.parametrize(
    ("error", "is_its"),
    [
        (REFUSED, True),
        (OSError("No data received for 10000ms"), True),
        (TimeoutError("no answer for 30 s"), True),
        (RuntimeError('DataTransferError("Block writer is closed")'), True),
        (OSError("RPC listener disconnected"), False),
        (RuntimeError('RPCError("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "x")'), False),
        (None, False),
    ],
)
def test_whose_failure_it_is(error: Exception | None, is_its: bool) -> None:
    assert error_mapping.is_of_datanode(error) == is_its
    wrapped = StorageError("cannot write it")
    wrapped.__cause__ = error
    assert error_mapping.is_of_datanode(wrapped) == is_its
    assert not error_mapping.is_of_datanode(MissingInputError("not there"))
