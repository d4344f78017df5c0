"""Processes by their number and start: a number that belongs to another process by now is left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from .problem import HadoopError

TERM_TIMEOUT_S = 20
KILL_TIMEOUT_S = 10


def started_at(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None where it runs no more. Tells a reused pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def resident_mb(pid: int) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) >> 10
    return 0


def processes_in(folder: Path) -> dict[int, str]:
    """Processes that work in a folder: a NodeManager that was killed leaves its containers running."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                where = os.readlink(entry / "cwd")
                if (where == str(folder) or where.startswith(f"{folder}/")) and (at := started_at(int(entry.name))):
                    found[int(entry.name)] = at
    return found


def end(processes: dict[int, str]) -> None:
    """SIGTERM, and SIGKILL for those that do not listen; a pid that belongs to another process by now is left alone."""
    for number, timeout_s in ((signal.SIGTERM, TERM_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
        for pid, started in processes.items():
            if started_at(pid) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        deadline = time.monotonic() + timeout_s
        while any(started_at(pid) == started for pid, started in processes.items()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return
    raise HadoopError(f"cannot end the processes {', '.join(map(str, processes))}")
