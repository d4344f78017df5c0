from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from tfos_job import lease as lease_module
from tfos_job import storage
from tfos_job.errors import BusyError, StorageError
from tfos_job.host import process_identity
from tfos_job.host.process_identity import process_started
from tfos_job.lease import Lease
from tfos_job.lock_file import Hold, Observer, is_abandoned


class Clock:
    """Steady seconds that move where the test says so, or somebody sleeps in the lease's module."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.on_sleep: list[Callable[[], None]] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        for act in self.on_sleep:
            act()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    # In that module alone: other threads of this process sleep as well, and none of them is to move this clock.
    monkeypatch.setattr(lease_module, "time", types.SimpleNamespace(sleep=clock.sleep, time=time.time))
    return clock


def write_lock(path: Path, **fields: object) -> None:
    lock = {"owner": "another job", "host": "elsewhere", "pid": 1, "token": "t", "time_s": time.time()}
    path.write_text(json.dumps(lock | fields))


def test_a_fresh_lock_is_refused_at_once_with_its_holders_name(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "data" / "_lock"
    fact = rf"held by first \(host .+, process {os.getpid()}\), renewed \d s ago"
    with Lease(str(path), "first", clock=clock), pytest.raises(BusyError, match=fact):
        Lease(str(path), "second", clock=clock).__enter__()
    assert list(path.parent.iterdir()) == []
    assert clock.now_s == 1_000


# A lock by a clock that was, or is, wrong: only what one sees oneself counts.
@pytest.mark.parametrize("off_s", [-8 * 3600.0, -100.0, 100.0, 8 * 3600.0])
def test_a_lock_of_another_time_is_watched_and_taken_when_nobody_changes_it(
    tmp_path: Path, clock: Clock, off_s: float
) -> None:
    path = tmp_path / "_lock"
    write_lock(path, time_s=time.time() + off_s)
    with Lease(str(path), "next", clock=clock) as lease:
        assert 1_060 < clock.now_s < 1_070
        lease.check()


@pytest.mark.parametrize("off_s", [-8 * 3600.0, -100.0, 100.0, 8 * 3600.0])
def test_a_lock_of_another_time_that_is_renewed_is_left_alone(tmp_path: Path, clock: Clock, off_s: float) -> None:
    path = tmp_path / "_lock"
    write_lock(path, time_s=time.time() + off_s)

    def renew() -> None:
        if clock.now_s > 1_020:
            write_lock(path, time_s=time.time() + off_s + 20)

    clock.on_sleep.append(renew)
    with pytest.raises(BusyError, match=r"held by another job .*, renewed 0 s ago"):
        Lease(str(path), "next", clock=clock).__enter__()
    assert clock.now_s < 1_030
    assert json.loads(path.read_text())["owner"] == "another job"


def test_an_outage_of_the_file_system_is_no_time_of_watching(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder cannot renew before it answers again, either."""
    path = tmp_path / "_lock"
    write_lock(path, time_s=time.time() - 1_000)
    read = storage.read_bytes

    def slow_read(name: str) -> bytes:
        if 1_040 < clock.now_s < 1_050:
            clock.now_s += 100
        return read(name)

    monkeypatch.setattr(storage, "read_bytes", slow_read)
    with Lease(str(path), "next", clock=clock):
        assert 1_140 + 60 < clock.now_s < 1_140 + 70


def test_a_holder_keeps_its_lock_over_an_outage_of_any_length(tmp_path: Path) -> None:
    """Renewals fail as long as the lock is a link to itself; nobody can have taken it meanwhile."""
    path = tmp_path / "_lock"
    with Lease(str(path), "first", ttl_s=0.3) as lease:
        lock = path.read_bytes()
        # By renames: a look between an unlink and what follows would find no lock, which is the loss of it.
        loop, kept = tmp_path / "loop", tmp_path / "kept"
        loop.symlink_to(path)
        loop.replace(path)
        with pytest.raises(StorageError, match="Too many levels"):
            lease.check()
        time.sleep(1)  # more than three times ttl_s
        lease.check_quickly()
        kept.write_bytes(lock)
        kept.replace(path)
        deadline_s = time.monotonic() + 60
        while path.read_bytes() == lock:
            assert time.monotonic() < deadline_s, "nobody renews it"
            time.sleep(0.01)
        lease.check()


def test_a_lock_that_was_taken_over_is_lost(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "_lock"
    with Lease(str(path), "first", clock=clock) as first:
        first.check()
        write_lock(path, owner="second", token="second")
        first.check_quickly()  # until somebody has looked
        for look in (first.check, first.check, first.check_quickly):
            with pytest.raises(BusyError, match=r"first lost its lock: second .* has taken it over"):
                look()
    # The first one's end came after the second's start.
    assert json.loads(path.read_text())["token"] == "second"


def test_a_lock_that_was_removed_is_lost(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "_lock"
    with Lease(str(path), "first", clock=clock) as first:
        path.unlink()
        with pytest.raises(BusyError, match="it was removed, or taken over and released"):
            first.check()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_renewed_as_long_as_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "_lock"
    with Lease(str(path), "first", ttl_s=0.3) as lease:
        for _ in range(2):
            before, deadline_s = path.read_bytes(), time.monotonic() + 60
            while path.read_bytes() == before:
                assert time.monotonic() < deadline_s, "nobody renews it"
                time.sleep(0.01)
        lease.check_quickly()


def test_a_look_at_a_lock_tells_whether_somebody_is_at_work(tmp_path: Path) -> None:
    path = tmp_path / "_lock"
    assert is_abandoned(str(path))
    with Lease(str(path), "first"):
        assert not is_abandoned(str(path))
    write_lock(path)
    assert not is_abandoned(str(path))
    for content in ({"time_s": time.time() - 70}, {"time_s": time.time() + 70}, {"time_s": "now"}):
        write_lock(path, **content)
        assert is_abandoned(str(path))
    write_lock(path, **process_identity.this_process() | {"process_started": "an earlier boot:1"})
    assert is_abandoned(str(path))


def test_the_lock_of_a_process_that_is_gone_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "_lock"
    code = f"import os; from tfos_job.lease import Lease; Lease({str(path)!r}, 'killed').__enter__(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert json.loads(path.read_text())["owner"] == "killed"
    with Lease(str(path), "next") as lease:
        lease.check()


def test_a_reused_pid_is_another_process(tmp_path: Path, clock: Clock) -> None:
    here = process_identity.this_process()
    path = tmp_path / "_lock"
    write_lock(path, **here)
    with pytest.raises(BusyError):
        Lease(str(path), "next", clock=clock).__enter__()
    write_lock(path, **here | {"process_started": "an earlier boot:1"})
    with Lease(str(path), "next", clock=clock):
        pass
    assert clock.now_s == 1_000


def test_a_process_in_another_namespace_is_not_taken_for_gone(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "_lock"
    write_lock(path, **process_identity.this_process() | {"process_started": "gone:1", "pid_namespace": "pid:[1]"})
    with pytest.raises(BusyError):
        Lease(str(path), "next", clock=clock).__enter__()


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b'{"time_s": "now"}'])
def test_an_unreadable_lock_is_watched_as_well(tmp_path: Path, clock: Clock, content: bytes) -> None:
    path = tmp_path / "_lock"
    path.write_bytes(content)
    with pytest.raises(BusyError, match=r"held by (an unknown owner|None .*), renewed \d s ago"):
        Lease(str(path), "next", clock=clock).__enter__()
    os.utime(path, (0, 0))
    with Lease(str(path), "next", clock=clock):
        assert clock.now_s > 1_060


def test_a_lock_that_changed_under_the_taker_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "_lock"
    write_lock(path, owner="quicker")
    fresh = path.read_bytes()
    Lease(str(path), "slower")._set_aside(b"the stale one, read before")
    assert path.read_bytes() == fresh
    assert [entry.name for entry in tmp_path.iterdir()] == ["_lock"]


def test_process_start_times() -> None:
    assert process_started(os.getpid()) == process_started(os.getpid())
    assert process_started(2**22 + 1) is None


def test_one_who_waits_takes_over_when_the_holder_renews_no_more(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "_lock"
    write_lock(path)
    with Lease(str(path), "the next attempt", wait_s=120, clock=clock):
        assert 1_060 < clock.now_s < 1_070

    def renew() -> None:  # this one is alive
        write_lock(path, token=str(clock.now_s))

    renew()
    clock.on_sleep.append(renew)
    began_s = clock.now_s
    with pytest.raises(BusyError, match="held by another job"):
        Lease(str(path), "the next attempt", wait_s=120, clock=clock).__enter__()
    assert 120 <= clock.now_s - began_s < 130


def test_who_follows_a_lock_learns_its_end_by_watching_it(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "_lock"
    observer = Observer(str(path), clock=lambda: clock.now_s)
    assert observer.look() is Hold.FREE
    write_lock(path, host="elsewhere", time_s=0)  # of a clock that is wrong by decades
    for _ in range(6):
        assert observer.look() is Hold.HELD
        clock.now_s += 10
    write_lock(path, host="elsewhere", time_s=1)
    assert observer.look() is Hold.HELD
    clock.now_s += 1_000  # in which the file system did not answer, or this host slept
    assert observer.look() is Hold.HELD
    for _ in range(6):
        clock.now_s += 11
        last = observer.look()
    assert last is Hold.ABANDONED
    path.unlink()
    assert observer.look() is Hold.FREE


def test_a_lock_of_a_process_that_has_ended_here_is_abandoned_at_once(tmp_path: Path) -> None:
    path = tmp_path / "_lock"
    with Lease(str(path), "train"):
        assert Observer(str(path)).look() is Hold.HELD
        held = json.loads(path.read_text())
    path.write_text(json.dumps(held | {"pid": 1, "process_started": "before"}))
    assert Observer(str(path)).look() is Hold.ABANDONED
