"""Unfinished files in a dataset's folder whose writers do not hold its lock: those of the lock and of statistics.

Such a file is a leftover of a killed job only if it is old: a young one may belong to a job that is at work.
"""

from __future__ import annotations

from tfos_job import storage
from tfos_job.layout import STATISTICS_PREFIX

_OLD_LOCK_S = 60.0  # jobs that try for the lock at this moment have younger ones
_OLD_STATISTICS_S = 86_400.0  # a training that writes them holds no lock of the dataset


def is_lockless(name: str) -> bool:
    """True if a name in a dataset's folder is that of such a file."""
    return _max_age_s(name) > 0


def may_be_at_work(entry: storage.Entry, now_s: float) -> bool:
    """True if such a file is so new that its writer may be at work."""
    return now_s - entry.mtime_s <= _max_age_s(entry.name)


def _max_age_s(name: str) -> float:
    # The lock is created by way of a file whose own temporary name begins with three.
    if name.startswith(("___lock.", "__lock.", "_lock.")) and name.endswith((".tmp", ".stale")):
        return _OLD_LOCK_S
    return _OLD_STATISTICS_S if name.startswith(f"_{STATISTICS_PREFIX}") and name.endswith(".tmp") else 0.0
