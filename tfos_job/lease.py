"""One writer at a time: a lock file with an owner, which its holder goes on changing.

The file holds JSON: `owner`, `host`, `pid`, `pid_namespace`, `process_started`, the `time_s` at which it was written
and a `token` that is unique to the holder, who writes it anew every third of `ttl_s`. It may be taken over at once when
its process ran on this host and is gone; else whoever wants it watches it, and takes it when it has not changed for
`ttl_s`. Times of day decide only whether watching is worth while: no host's clock need be right, and none is believed.

While the file system does not answer nobody can renew, and nobody watches: watching begins anew after it. So a holder
keeps its lock over an outage of any length, and loses it to nothing but another one's evidence. Before it publishes it
calls `check`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tfos_job import storage
from tfos_job.errors import BusyError, JobError, MissingInputError, StorageError

TTL_S = 60.0
_ATTEMPTS = 8
_CHECKS = 4  # of half of a lock's time each: as patient as all that asks HDFS for something
_MAX_POLL_S = 2.0
_log = logging.getLogger(__name__)


def _steady_s() -> float:
    """Seconds that nobody sets, and that go on while the machine sleeps: others may have taken the lock meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """Holds the lock file at `path` for the length of a `with` block.

    Args:
      path: the lock file; its folder is made where it is missing.
      owner: what the holder is, in words for the one who has to wait, such as `tfos-job convert`.
      ttl_s: seconds without a change after which others may take over. It is renewed every third of that.
      wait_s: seconds to wait for a holder that looks alive: for one who knows that it must be dead.
      clock: seconds that nobody sets.

    Raises:
      BusyError: somebody else holds it.
    """

    def __init__(
        self,
        path: str,
        owner: str,
        ttl_s: float = TTL_S,
        *,
        wait_s: float = 0.0,
        clock: Callable[[], float] = _steady_s,
    ) -> None:
        self.path = path
        self.owner = owner
        self.ttl_s = ttl_s
        self.wait_s = wait_s
        self.token = uuid.uuid4().hex
        self._clock = clock
        self._loss: BusyError | None = None
        self._renewing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        storage.make_dirs(self.path.rpartition("/")[0] or ".")
        self._acquire()
        self._thread = threading.Thread(target=self._keep_fresh, name=f"lease {self.path}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self.ttl_s)
        try:
            if _holder(self.path).get("token") == self.token:
                storage.remove(self.path)
        except JobError as failure:  # The work is done; the lock will be stale soon.
            _log.warning("could not release the lock: %s", failure)

    def check(self) -> None:
        """Proves that the lock is ours, and renews it, so that nobody takes it for the next `ttl_s`.

        Call it before publishing: a holder that was stopped, or cut off, may have lost its lock.

        Raises:
          BusyError: the lock is somebody else's by now, or gone.
          StorageError: the file system does not answer.
        """
        for tries_left in reversed(range(_CHECKS)):
            try:
                return self._prove()
            except StorageError as error:
                if not tries_left:
                    raise
                _log.warning("could not renew the lock, trying again: %s", error)

    def _prove(self) -> None:
        """Proof and renewal, in half of `ttl_s`: nobody can have taken the lock between the two."""
        with self._renewing, storage.within(self.ttl_s / 2):
            if self._loss is None:
                try:
                    require(self.path, self.token, self.owner)
                except BusyError as error:
                    self._loss = error
            if self._loss is not None:
                raise self._loss
            storage.write_bytes(self.path, self._content())

    def check_quickly(self) -> None:
        """As `check`, by what the renewals have found, without a look at the file.

        Raises:
          BusyError: the lock is somebody else's, or gone.
        """
        if self._loss is not None:
            raise self._loss

    def _acquire(self) -> None:
        deadline_s = self._clock() + self.wait_s
        watch: _Watch | None = None
        failures = 0
        while True:
            try:
                content = storage.read_bytes(self.path)
            except MissingInputError:
                if storage.create_exclusive(self.path, self._content()):
                    return
                failures += 1
                if failures == _ATTEMPTS:
                    raise BusyError(
                        "others take this lock as fast as it is released", place=self.path, next_step="Try again later"
                    ) from None
                continue
            now_s, holder = self._clock(), _parse(content)
            has_changed = watch is not None and watch.content != content
            if watch is None or has_changed or now_s - watch.last_s > self.ttl_s / 3:
                watch = _Watch(content, since_s=now_s)
            watch.last_s = now_s
            if _is_gone(holder) or now_s - watch.since_s > self.ttl_s:
                _log.warning("taking over the lock %s of %s, which does not renew it", self.path, _name(holder))
                self._set_aside(content)
                continue
            age_s = self._age_s(holder)
            if (has_changed or abs(age_s) <= self.ttl_s) and now_s >= deadline_s:
                raise self._busy(holder, 0.0 if has_changed else age_s)
            if watch.since_s == now_s:
                _log.info("watching the lock %s of %s for up to %g s", self.path, _name(holder), self.ttl_s)
            time.sleep(min(_MAX_POLL_S, self.ttl_s / 10))

    def _age_s(self, holder: dict[str, Any]) -> float:
        """How long ago the lock was written, where this host's clock and the writer's agree."""
        with contextlib.suppress(MissingInputError):
            return time.time() - (_written_s(holder) or storage.stat(self.path).mtime_s)
        return 0.0

    def _set_aside(self, stale: bytes) -> None:
        """Removes the lock file if it still is the stale one that was read.

        Two may find the same stale file. Only one rename of *it* succeeds, but the slower one may move the quicker
        one's new lock; so look at what was moved, and put it back when it is not what was meant. (Whoever slips in
        between has the lock and the other one learns it from `check`.)
        """
        aside = f"{self.path}.{self.token}.stale"
        try:
            storage.rename(self.path, aside)
        except MissingInputError:
            return
        moved = storage.read_bytes(aside)
        if moved != stale:
            storage.create_exclusive(self.path, moved)
        storage.remove(aside)

    def _keep_fresh(self) -> None:
        pause_s = self.ttl_s / 3
        while not self._stop.wait(pause_s):
            try:
                self._prove()
                pause_s = self.ttl_s / 3
            except BusyError as error:
                _log.error("%s", error)
                return
            except JobError as error:
                _log.warning("could not renew the lock: %s", error)
                pause_s = self.ttl_s / 10  # soon after the file system is back: others begin to watch then

    def _content(self) -> bytes:
        value = {"owner": self.owner, "time_s": time.time(), "token": self.token, **_this_process()}
        return json.dumps(value, indent=1, sort_keys=True).encode()

    def _busy(self, holder: dict[str, Any], age_s: float) -> BusyError:
        return BusyError(
            f"held by {_name(holder)}, renewed {max(0.0, age_s):.0f} s ago",
            place=self.path,
            next_step=f"Wait for it to end; a lock that is not renewed for {self.ttl_s:g} s is taken over",
        )


@dataclass
class _Watch:
    """A lock's content, since when and until when it was seen without a gap."""

    content: bytes
    since_s: float
    last_s: float = 0.0


def require(path: str, token: str, owner: str) -> None:
    """For a process that works for the holder of a lock: proves that it still is the holder's.

    Raises:
      BusyError: it is somebody else's by now, or gone.
    """
    holder = _holder(path)
    if holder.get("token") != token:
        fact = f"{_name(holder)} has taken it over" if holder else "it was removed, or taken over and released"
        raise BusyError(f"{owner} lost its lock: {fact}", place=path, next_step="Run the command again")


def is_abandoned(path: str) -> bool:
    """Whether nobody holds the lock, as far as one look can tell: who wants to write must watch it."""
    holder = _holder(path)
    return _is_gone(holder) or abs(time.time() - _written_s(holder)) > TTL_S


def _holder(path: str) -> dict[str, Any]:
    """The fields of the lock at `path`; none where there is none."""
    with contextlib.suppress(MissingInputError):
        return _parse(storage.read_bytes(path))
    return {}


def _parse(content: bytes) -> dict[str, Any]:
    """The lock's fields; none of them for a file that is not a lock's JSON, which is judged by whether it changes."""
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _written_s(holder: dict[str, Any]) -> float:
    """When the lock was written, by its writer's clock; 0 where it does not say so."""
    time_s = holder.get("time_s")
    return float(time_s) if isinstance(time_s, int | float) else 0.0


def _name(holder: dict[str, Any]) -> str:
    if not holder:
        return "an unknown owner"
    return f"{holder.get('owner')} (host {holder.get('host')}, process {holder.get('pid')})"


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "pid_namespace": _pid_namespace(),
        "process_started": process_started(pid),
    }


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder ran where we can see it and runs no more."""
    here = _this_process()
    if here["process_started"] is None or not holder.get("process_started"):
        return False
    if (holder.get("host"), holder.get("pid_namespace")) != (here["host"], here["pid_namespace"]):
        return False  # A container may share the host's name and number its processes differently.
    return bool(process_started(int(holder.get("pid", 0))) != holder["process_started"])


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def process_started(pid: int) -> str | None:
    """Boot and start time of a process, which tell a reused pid from the old one; None where it is not running.

    Field 22 of /proc/PID/stat, counted from behind the command's name, which may hold blanks and parentheses.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot_id:
            return f"{boot_id.read().strip()}:{fields[19]}" if fields[0] != "Z" else None
    except OSError:
        return None
