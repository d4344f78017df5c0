"""The memory of a group of processes on this host, and the limit that it has.

A container's memory is bounded by its control group (cgroup), whose kernel counter tells of processes that it has
killed, or by YARN, which adds up what is resident.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tfos_job.host import proc

CGROUPS = "/sys/fs/cgroup"
OWN_GROUPS = "/proc/self/cgroup"
_KIB = 1 << 10


@dataclass(frozen=True)
class Usage:
    """What is known of a group of processes.

    Attributes:
      peak_bytes: the highest resident memory of each so far, added up: at least what they have held together. Pages
        that a fork shares with its parent count twice, as they do for YARN.
      limit_bytes: of their container; 0 if it is unknown.
      num_oom_kills: how often the kernel has killed in this process's cgroup since the beginning.
    """

    peak_bytes: int = 0
    limit_bytes: int = 0
    num_oom_kills: int = 0


class Meter:
    """Measures processes from now on. Whoever has one calls `sample` about once a second.

    Args:
      pids: of the processes; those that have ended count with what they had.
      container_bytes: limit of YARN's container; 0 if it is unknown.
      proc_root, cgroups, own_groups: other places for /proc, /sys/fs/cgroup and /proc/self/cgroup.
    """

    def __init__(
        self,
        pids: Iterable[int],
        *,
        container_bytes: int = 0,
        proc_root: str = proc.ROOT,
        cgroups: str = CGROUPS,
        own_groups: str = OWN_GROUPS,
    ) -> None:
        self._peaks = dict.fromkeys(pids, 0)
        self._proc_root, self._cgroups, self._own_groups = proc_root, cgroups, own_groups
        limits = (container_bytes, limit_bytes(cgroups, own_groups))
        self._limit_bytes = min((limit for limit in limits if limit), default=0)
        self._kills_before = num_oom_kills(cgroups, own_groups)
        self._children_before = _ended_childrens_peak()

    def sample(self) -> Usage:
        for pid, highest in self._peaks.items():
            self._peaks[pid] = max(highest, proc.peak_bytes(pid, self._proc_root))
        kills = num_oom_kills(self._cgroups, self._own_groups) - self._kills_before
        return Usage(sum(self._peaks.values()), self._limit_bytes, max(0, kills))

    def note_end(self, pid: int) -> None:
        """A child of this process has ended and was waited for: the kernel knows more than the last sample."""
        highest = _ended_childrens_peak()
        if highest > self._children_before:  # else some other child was larger
            self._peaks[pid] = max(self._peaks[pid], highest)


def gib(num_bytes: float) -> str:
    """Memory or disk in words."""
    return f"{num_bytes / (1 << 30):.2f} GiB"


def host_bytes() -> int:
    """The memory of this host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def limit_bytes(root: str = CGROUPS, own: str = OWN_GROUPS) -> int | None:
    """The lowest limit of this process's cgroups and those above them; None if none is below the host's memory."""
    limits: list[int] = []
    for mount, group, is_v2 in _groups(root, own):
        name = "memory.max" if is_v2 else "memory.limit_in_bytes"
        for folder in _upwards(mount, group):
            text = _read(folder / name).strip()
            if text.isdigit():
                limits.append(int(text))
    lowest = min(limits, default=None)
    return lowest if lowest is not None and lowest < host_bytes() else None


def num_oom_kills(root: str = CGROUPS, own: str = OWN_GROUPS) -> int:
    """The kernel's count of processes of this process's cgroup that it has killed for their memory."""
    counts = [0]
    for mount, group, is_v2 in _groups(root, own):
        name = "memory.events" if is_v2 else "memory.oom_control"
        text = next((found for folder in _upwards(mount, group) if (found := _read(folder / name))), "")
        counts += [int(words[1]) for line in text.splitlines() if (words := line.split())[:1] == ["oom_kill"]]
    return max(counts)


def _groups(root: str, own: str) -> Iterator[tuple[Path, str, bool]]:
    """Mount, path and version of each of this process's cgroups that may control memory."""
    for line in _read(Path(own)).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            yield Path(root), group, True
        elif "memory" in controllers.split(","):
            yield Path(root, "memory"), group, False


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The folders of a cgroup and of those above it.

    In a container's own namespace the group's path does not exist, and the mount's root is the container's group.
    """
    folder = mount / group.lstrip("/")
    for candidate in (folder, *folder.parents):
        yield candidate
        if candidate == mount:
            return


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _ended_childrens_peak() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _KIB


def give_back() -> None:
    """Gives memory that is not used any more back to the system.

    The C library keeps what large objects leave behind, and if they come and go on several threads, more each time.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # of glibc alone
        ctypes.CDLL(None).malloc_trim(0)
