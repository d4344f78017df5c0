"""Memory of processes and its limits: real processes, and trees of files as the kernel has them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.unit.waits import wait_until
from tfos_job.host import memory, proc
from tfos_job.host.child import child_environment
from tfos_job.host.memory import Meter, Usage

MIB = 1 << 20


def test_the_lowest_limit_of_the_control_groups(tmp_path: Path) -> None:
    (tmp_path / "v2/a/b").mkdir(parents=True)
    (tmp_path / "v2/a/memory.max").write_text("1048576\n")
    (tmp_path / "v2/a/b/memory.max").write_text("max\n")
    (tmp_path / "v1/memory").mkdir(parents=True)
    (tmp_path / "v1/memory/memory.limit_in_bytes").write_text("2097152\n")
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    assert memory.limit_bytes(str(tmp_path / "v2"), str(own)) == 1 << 20
    own.write_text("4:cpu,memory:/not/in/this/namespace\n2:cpu:/\n")
    assert memory.limit_bytes(str(tmp_path / "v1"), str(own)) == 2 << 20
    (tmp_path / "v1/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory.limit_bytes(str(tmp_path / "v1"), str(own)) is None
    assert memory.limit_bytes(str(tmp_path), str(tmp_path / "none")) is None


@pytest.mark.parametrize(
    ("groups", "folder", "file"),
    [
        ("0::/a/b\n", "a/b", "memory.events"),
        ("0::/not/in/this/namespace\n", "", "memory.events"),
        ("3:cpu:/x\n4:memory:/a\n0::/\n", "memory/a", "memory.oom_control"),
    ],
)
def test_kills_count_from_the_beginning_and_peaks_stay(tmp_path: Path, groups: str, folder: str, file: str) -> None:
    cgroups, processes, own = tmp_path / "cgroup", tmp_path / "proc", tmp_path / "own"
    (cgroups / folder).mkdir(parents=True)
    own.write_text(groups)

    def kills(number: int) -> None:
        (cgroups / folder / file).write_text(f"under_oom 0\noom_kill_disable 0\noom_kill {number}\n")

    def status(pid: int, *lines: str) -> None:
        (processes / str(pid)).mkdir(parents=True, exist_ok=True)
        (processes / str(pid) / "status").write_text("\n".join(("Name:\tpython", *lines, "")))

    kills(3)
    status(7, "VmHWM:\t    1024 kB", "VmRSS:\t     512 kB")
    status(8, "VmHWM:\t    2048 kB")
    meter = Meter(
        [7, 8, 9], container_bytes=5 * MIB, proc_root=str(processes), cgroups=str(cgroups), own_groups=str(own)
    )
    assert meter.sample() == Usage(3 * MIB, 5 * MIB, 0)
    status(7, "VmHWM:\t    4096 kB")
    status(8)  # it has ended, and was not waited for yet
    kills(4)
    assert meter.sample() == Usage(6 * MIB, 5 * MIB, 1)


def test_the_smaller_limit_is_the_containers_or_the_kernels(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/a\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "memory.max").write_text(f"{8 * MIB}\n")
    for container_bytes, expected in ((0, 8 * MIB), (4 * MIB, 4 * MIB), (9 * MIB, 8 * MIB)):
        meter = Meter([], container_bytes=container_bytes, cgroups=str(tmp_path), own_groups=str(own))
        assert meter.sample().limit_bytes == expected


# In a process of its own: the kernel keeps the largest of all children that a process has had.
CHILDREN = """
import os, signal, subprocess, sys
from tfos_job.host.memory import Meter

small = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
meter = Meter([small.pid])
while not (before := meter.sample().peak_bytes):
    pass
small.kill()
small.communicate()
after = meter.sample().peak_bytes
large = subprocess.Popen([sys.executable, "-c", "import os; data = b'1' * (100 << 20); os.kill(os.getpid(), 9)"])
meter = Meter([large.pid])
assert large.wait() == -signal.SIGKILL
meter.note_end(large.pid)
print(before, after, meter.sample().peak_bytes)
"""


def test_a_process_that_was_killed_has_the_peak_that_no_sample_saw() -> None:
    told = subprocess.run([sys.executable, "-c", CHILDREN], env=child_environment(""), capture_output=True, check=True)
    before, after, killed = map(int, told.stdout.split())
    assert before <= after
    assert 100 * MIB < killed < 200 * MIB


def test_what_the_kernel_says_of_a_process() -> None:
    sleeper = subprocess.Popen(["sleep", "3600"])
    try:
        wait_until(lambda: psutil.Process(sleeper.pid).name() == "sleep")
        state = proc.state(sleeper.pid)
        assert state is not None
        assert not proc.is_stopped(state)
        assert not proc.catches(sleeper.pid, signal.SIGUSR1)
        assert proc.catches(os.getpid(), signal.SIGINT)
        sleeper.send_signal(signal.SIGSTOP)
        wait_until(lambda: proc.is_stopped(proc.state(sleeper.pid) or ""))
    finally:
        sleeper.kill()
    wait_until(lambda: proc.state(sleeper.pid) is None)  # a zombie
    sleeper.wait()
    assert proc.state(sleeper.pid) is None
    assert (proc.peak_bytes(sleeper.pid), proc.catches(sleeper.pid, signal.SIGINT)) == (0, False)
