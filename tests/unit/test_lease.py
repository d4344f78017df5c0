from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from tfos_job import lease as lease_module
from tfos_job.errors import BusyError
from tfos_job.lease import Lease, process_started


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write_lock(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({"owner": "another job", "host": "elsewhere", "pid": 1, "token": "t"} | fields))


def test_a_fresh_lock_is_refused_with_its_holders_name(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "data" / "_lock"
    with Lease(str(path), "first", clock=clock):
        clock.now_s += 7
        with pytest.raises(BusyError, match=rf"held by first \(host .+, process {os.getpid()}\), renewed 7 s ago"):
            Lease(str(path), "second", clock=clock).__enter__()
    assert list(path.parent.iterdir()) == []


def test_a_lock_that_was_not_renewed_is_taken_over_and_its_holder_learns_it(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "_lock"
    with Lease(str(path), "first", clock=clock) as first:
        first.check()
        clock.now_s += 61
        with Lease(str(path), "second", clock=clock) as second:
            with pytest.raises(BusyError, match="first lost its lock"):
                first.check()
            with pytest.raises(BusyError):
                first.renew()
            second.check()
    # The first one's end came after the second's, and a third's lock would have survived it as well.
    write_lock(path, token="third")
    first.__exit__(None, None, None)
    assert json.loads(path.read_text())["token"] == "third"


def test_a_lock_is_renewed_as_long_as_it_is_held(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "_lock"
    with Lease(str(path), "first", ttl_s=0.3, clock=clock) as lease:
        for _ in range(2):
            clock.now_s += 1
            deadline_s = time.monotonic() + 60
            while json.loads(path.read_text())["time_s"] != clock.now_s:
                assert time.monotonic() < deadline_s, "nobody renews it"
                time.sleep(0.01)
        lease.check()


def test_a_holder_that_could_not_renew_stops_by_itself(tmp_path: Path, clock: Clock) -> None:
    with Lease(str(tmp_path / "_lock"), "first", clock=clock) as lease:
        lease.check_quickly()
        clock.now_s += 50
        lease.renew()
        clock.now_s += 50
        lease.check_quickly()
        clock.now_s += 11
        with pytest.raises(BusyError, match="first lost its lock"):
            lease.check_quickly()


def test_renewal_keeps_others_out(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "_lock"
    with Lease(str(path), "first", clock=clock) as first:
        for _ in range(3):
            clock.now_s += 50
            first.renew()
        with pytest.raises(BusyError, match="renewed 0 s ago"):
            Lease(str(path), "second", clock=clock).__enter__()


def test_the_lock_of_a_process_that_is_gone_is_free_at_once(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "_lock"
    code = f"import os; from tfos_job.lease import Lease; Lease({str(path)!r}, 'killed').__enter__(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert json.loads(path.read_text())["owner"] == "killed"
    with Lease(str(path), "next") as lease:
        lease.check()


def test_a_reused_pid_is_another_process(tmp_path: Path, clock: Clock) -> None:
    here = lease_module._this_process()
    path = tmp_path / "_lock"
    write_lock(path, **here, time_s=clock.now_s)
    with pytest.raises(BusyError):
        Lease(str(path), "next", clock=clock).__enter__()
    write_lock(path, **here | {"process_started": "an earlier boot:1"}, time_s=clock.now_s)
    with Lease(str(path), "next", clock=clock):
        pass


def test_a_process_in_another_namespace_is_judged_by_time_alone(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "_lock"
    gone = lease_module._this_process() | {"process_started": "gone:1", "pid_namespace": "pid:[1]"}
    write_lock(path, **gone, time_s=clock.now_s)
    with pytest.raises(BusyError):
        Lease(str(path), "next", clock=clock).__enter__()


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]"])
def test_an_unreadable_lock_counts_by_the_time_of_its_file(tmp_path: Path, clock: Clock, content: bytes) -> None:
    path = tmp_path / "_lock"
    path.write_bytes(content)
    os.utime(path, (clock.now_s - 10, clock.now_s - 10))
    with pytest.raises(BusyError, match="unknown owner"):
        Lease(str(path), "next", clock=clock).__enter__()
    clock.now_s += 60
    with Lease(str(path), "next", clock=clock):
        pass


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


def test_one_who_waits_takes_over_when_the_holder_renews_no_more(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "_lock"
    write_lock(path, time_s=clock.now_s)

    def sleep(seconds: float) -> None:
        clock.now_s += seconds

    # In that module alone: other threads of this process sleep as well, and none of them is to move this clock.
    monkeypatch.setattr(lease_module, "time", types.SimpleNamespace(sleep=sleep))
    began_s = clock.now_s
    with Lease(str(path), "the next attempt", wait_s=120, clock=clock):
        assert 60 < clock.now_s - began_s < 70
    write_lock(path, time_s=clock.now_s + 10_000)  # this one is alive
    with pytest.raises(BusyError, match="held by another job"):
        Lease(str(path), "the next attempt", wait_s=120, clock=clock).__enter__()
