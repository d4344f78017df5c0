"""A lock file (`lease.py`) as its readers see it: who holds it, and whether that is alive.

The time within it proves nothing, since clocks may be wrong. A holder is gone if its process ran on this host and has
ended, or if the file has not changed for `TTL_S` of an unbroken watch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfos_job import storage
from tfos_job.errors import BusyError, MissingInputError
from tfos_job.host import process_identity

TTL_S = 60.0


def steady_s() -> float:
    """Returns seconds that nobody sets and that count suspended time, in which others may have taken the lock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Watch:
    """A lock's content, and the times at which an unbroken watch first and last read it."""

    content: bytes
    since_s: float
    last_s: float

    def is_over(self, ttl_s: float) -> bool:
        """True if the holder has ended, or did not renew the lock for all this time."""
        return process_identity.is_gone(parse(self.content)) or self.last_s - self.since_s > ttl_s


def watched(watch: Watch | None, content: bytes, now_s: float, ttl_s: float) -> Watch:
    """The watch with a further look; a new one if the content has changed, or the looks were too far apart."""
    if watch is None or watch.content != content or now_s - watch.last_s > ttl_s / 3:
        return Watch(content, since_s=now_s, last_s=now_s)
    return dataclasses.replace(watch, last_s=now_s)


class Hold(enum.Enum):
    """What a reader knows of a lock."""

    FREE = "nobody has it"
    HELD = "its holder renews it, or has done so lately"
    ABANDONED = "its holder has ended, or does not renew it"


class Observer:
    """A lock as a reader sees it who looks at it again and again, and takes nothing over."""

    def __init__(self, path: str, ttl_s: float = TTL_S, *, clock: Callable[[], float] = steady_s) -> None:
        self._path = path
        self._ttl_s = ttl_s
        self._clock = clock
        self._watch: Watch | None = None

    def look(self) -> Hold:
        """Looks at the lock; raises as `storage.read_bytes` does, except where there is none."""
        try:
            content = storage.read_bytes(self._path)
        except MissingInputError:
            self._watch = None
            return Hold.FREE
        self._watch = watched(self._watch, content, self._clock(), self._ttl_s)
        return Hold.ABANDONED if self._watch.is_over(self._ttl_s) else Hold.HELD


def require(path: str, token: str, owner: str, **fields: int) -> None:
    """Verifies that the lock still has this token; for a process that works on behalf of the holder.

    Args:
      path: of the lock file.
      token: the holder's.
      owner: description of who asks.
      fields: numbers of this process that the holder announces (`Lease.announce`) and only raises.

    Raises:
      BusyError: another process holds the lock, the file is gone, or the holder has announced a higher number.
    """
    holder = holder_of(path)
    if holder.get("token") != token:
        fact = f"{name_of(holder)} has taken it over" if holder else "it was removed, or taken over and released"
        raise BusyError(f"{owner} lost its lock: {fact}", place=path, next_step="Run the command again")
    for name, number in fields.items():
        # A lower one is that of a renewal whose write was late: the next one brings the right number.
        if (announced := holder.get(name, number)) > number:
            fact = f"{owner} lost its lock: this is {name} {number}, and {name} {announced} has begun"
            raise BusyError(fact, place=path, next_step="Run the command again")


def is_abandoned(path: str) -> bool:
    """True if the lock seems to be held by nobody. A writer must not rely on this, but watch the lock."""
    holder = holder_of(path)
    return process_identity.is_gone(holder) or abs(time.time() - written_s(holder)) > TTL_S


def held_by(path: str) -> str:
    """The name of the lock's holder; empty if nobody seems to hold it. For a reader: see `is_abandoned`."""
    holder = holder_of(path)
    return name_of(holder) if holder and not is_abandoned(path) else ""


def holder_of(path: str) -> dict[str, Any]:
    """Returns the fields of the lock at `path`; empty if there is none."""
    with contextlib.suppress(MissingInputError):
        return parse(storage.read_bytes(path))
    return {}


def parse(content: bytes) -> dict[str, Any]:
    """Returns the lock's fields; empty if the content is no lock's JSON. Such a file is watched like any other."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def written_s(holder: dict[str, Any]) -> float:
    """Returns the time of writing by the writer's clock; 0 if the field is missing."""
    time_s = holder.get("time_s")
    return float(time_s) if isinstance(time_s, int | float) else 0.0


def name_of(holder: dict[str, Any]) -> str:
    if not holder:
        return "an unknown owner"
    return f"{holder.get('owner')} (host {holder.get('host')}, process {holder.get('pid')})"
