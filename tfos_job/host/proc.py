"""Facts about processes of this host, from /proc. Those of a process that has ended are None, False or 0."""

from __future__ import annotations

from pathlib import Path

ROOT = "/proc"
_KIB = 1 << 10
_STOPPED = ("T", "t")


def state(pid: int) -> str | None:
    """The state in the kernel's words: `S (sleeping)`, `T (stopped)`, `D (disk sleep)`."""
    found = _status(pid).get("State")
    return None if found is None or found.startswith(("Z", "X")) else found


def is_stopped(state: str) -> bool:
    """True for the state of a process that a signal has stopped, or a debugger."""
    return state.startswith(_STOPPED)


def catches(pid: int, signum: int) -> bool:
    """True if the process has a handler for the signal."""
    return bool(int(_status(pid).get("SigCgt", "0"), 16) >> (signum - 1) & 1)


def peak_bytes(pid: int, root: str = ROOT) -> int:
    """The highest resident memory of the process since it began."""
    words = _status(pid, root).get("VmHWM", "").split()
    return int(words[0]) * _KIB if words else 0


def _status(pid: int, root: str = ROOT) -> dict[str, str]:
    try:
        text = Path(root, str(pid), "status").read_text(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}
