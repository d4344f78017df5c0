"""Identity of a process: host, pid, pid namespace, boot and start time, as JSON values for a lock file."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any


def this_process() -> dict[str, Any]:
    return of(os.getpid())


def of(pid: int) -> dict[str, Any]:
    """The identity of a process in this one's pid namespace."""
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "pid_namespace": _pid_namespace(),
        "process_started": process_started(pid),
    }


def is_gone(identity: Mapping[str, Any]) -> bool:
    """True if the process ran where this one can see it, and has ended."""
    here = this_process()
    if here["process_started"] is None or not identity.get("process_started"):
        return False
    if (identity.get("host"), identity.get("pid_namespace")) != (here["host"], here["pid_namespace"]):
        return False  # a container may have the host's name and number its processes differently
    return bool(process_started(int(identity.get("pid", 0))) != identity["process_started"])


def is_alive_here(identity: Mapping[str, Any]) -> bool:
    """True if the process runs where this one can see it, and signal it by its pid."""
    here = of(int(identity.get("pid", 0)))
    return here["process_started"] is not None and here == dict(identity)


def process_started(pid: int) -> str | None:
    """Returns boot and start time of a process, which distinguish it from a later one with this pid; None if it ended.

    The start time is field 22 of /proc/PID/stat, counted from the end of the command's name, which may contain blanks
    and parentheses.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot_id:
            return f"{boot_id.read().strip()}:{fields[19]}" if fields[0] != "Z" else None
    except OSError:
        return None


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
