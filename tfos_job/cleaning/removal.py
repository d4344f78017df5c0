"""The removal of one thing. Under the lock of the folder that it is in, and under its own if it has one.

A folder is renamed first, to a name that no reader looks for: by that step all of it is gone at once. Whoever is killed
behind it leaves a folder that the next `clean` removes as a leftover.
"""

from __future__ import annotations

from collections.abc import Callable

from tfos_job import storage
from tfos_job.cleaning import names, survey
from tfos_job.cleaning.plan import Kind, Thing
from tfos_job.layout import join
from tfos_job.lease import Lease

OWNER = "tfos-job clean"
_LOCKED = (Kind.RUN, Kind.EXPORTS)


def remove(thing: Thing, guard: Callable[[], None]) -> bool:
    """Removes a thing; returns whether it was as expected, else it stays.

    Args:
      thing: what to remove.
      guard: called last before a change; raises if the folder's lock is somebody else's by now.

    Raises:
      BusyError: somebody is at work on it, or from `guard`; it stays.
      StorageError: the file system failed; the next call goes on.
    """
    if thing.kind in _LOCKED:
        if not survey.is_same(thing):  # before its lock, which would make the folder
            return False
        with Lease(join(thing.path, "_lock"), OWNER) as lease:
            if not survey.is_same(thing):
                return False
            guard()
            lease.check()
            hidden = storage.hide_dir(thing.path)
        storage.remove(hidden)
        return True
    if not survey.is_same(thing):
        return False
    guard()
    name = thing.path.rpartition("/")[2]
    # What has a temporary name already is not given a longer one.
    is_visible = storage.is_dir(thing.path) and not names.is_unfinished(name)
    (storage.discard_dir if is_visible else storage.remove)(thing.path)
    return True
