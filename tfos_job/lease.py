"""One writer at a time: a lock file with an owner and a time, kept fresh by its holder.

The file holds JSON: `owner`, `host`, `pid`, `pid_namespace`, `process_started`, `time_s` and a `token` that is unique
to the holder. It is stale, and may be taken over, when it has not been renewed for `ttl_s`, or at once when its process
ran on this host and is gone. Clocks of hosts that share a dataset must agree to within a fraction of `ttl_s`.
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
from types import TracebackType
from typing import Any, Self

from tfos_job import storage
from tfos_job.errors import BusyError, JobError, MissingInputError

_ATTEMPTS = 8
_WAIT_POLL_S = 2.0
_log = logging.getLogger(__name__)


class Lease:
    """Holds the lock file at `path` for the length of a `with` block.

    Args:
      path: the lock file; its folder is made where it is missing.
      owner: what the holder is, in words for the one who has to wait, such as `tfos-job convert`.
      ttl_s: seconds without a renewal after which others may take over. It is renewed every third of that.
      wait_s: seconds to wait for a holder to renew its lock no more: for one who knows that the holder must be dead.
      clock: Unix time in seconds.

    Raises:
      BusyError: somebody else holds it.
    """

    def __init__(
        self,
        path: str,
        owner: str,
        ttl_s: float = 60.0,
        *,
        wait_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.owner = owner
        self.ttl_s = ttl_s
        self.wait_s = wait_s
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._lost = False
        self._renewed_s = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        storage.make_dirs(self.path.rpartition("/")[0] or ".")
        self._wait_and_acquire()
        self._renewed_s = self._clock()
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
            if self._is_mine():
                storage.remove(self.path)
        except JobError as failure:  # The work is done; the lock will be stale soon.
            _log.warning("could not release the lock: %s", failure)

    def check(self) -> None:
        """Call before publishing: a holder that was stopped for longer than `ttl_s` may have lost its lock.

        Raises:
          BusyError: the lock is somebody else's by now.
        """
        if self._lost or not self._is_mine():
            self._lost = True
            raise BusyError(
                f"{self.owner} lost its lock: somebody removed it, or took it over after {self.ttl_s:g} s unrenewed",
                place=self.path,
                next_step="Run the command again",
            )

    def check_quickly(self) -> None:
        """As `check`, by what the renewals have found, without a look at the file.

        Raises:
          BusyError: the lock is somebody else's, or may be: it could not be renewed for `ttl_s`.
        """
        if self._lost or self._clock() - self._renewed_s > self.ttl_s:
            self._lost = True
            self.check()

    def renew(self) -> None:
        """Writes the present time into the lock file; raises `BusyError` where it is not ours any more."""
        self.check()
        content, now_s = self._content(), self._clock()
        storage.write_bytes(self.path, content)
        self._renewed_s = now_s

    def _wait_and_acquire(self) -> None:
        deadline_s = self._clock() + self.wait_s
        while True:
            try:
                return self._acquire()
            except BusyError as error:
                if self._clock() >= deadline_s:
                    raise
                _log.info("waiting: %s", error.fact)
            time.sleep(min(_WAIT_POLL_S, self.wait_s))

    def _acquire(self) -> None:
        for _ in range(_ATTEMPTS):
            if storage.create_exclusive(self.path, self._content()):
                return
            try:
                content = storage.read_bytes(self.path)
                holder = _parse(content)
                written_s = holder.get("time_s") or storage.stat(self.path).mtime_s
            except MissingInputError:
                continue  # released between our two looks
            age_s = max(0.0, self._clock() - written_s)
            if age_s <= self.ttl_s and not _is_gone(holder):
                raise self._busy(holder, age_s)
            _log.warning("taking over the lock %s of %s, last renewed %.0f s ago", self.path, _name(holder), age_s)
            self._set_aside(content)
        raise BusyError("others take this lock as fast as it is released", place=self.path, next_step="Try again later")

    def _set_aside(self, stale: bytes) -> None:
        """Removes the lock file if it still is the stale one that was read.

        Two may find the same stale file. Only one rename of *it* succeeds, but the slower one may move the quicker
        one's new lock; so look at what was moved, and put it back when it is not what was meant. (Whoever slips in
        between has the lock and the other one learns it from `check`.)
        """
        aside = f"{self.path}.{self._token}.stale"
        try:
            storage.rename(self.path, aside)
        except MissingInputError:
            return
        moved = storage.read_bytes(aside)
        if moved != stale:
            storage.create_exclusive(self.path, moved)
        storage.remove(aside)

    def _keep_fresh(self) -> None:
        while not self._stop.wait(self.ttl_s / 3):
            try:
                self.renew()
            except BusyError as error:
                _log.error("%s", error)
                return
            except JobError as error:  # The file system may be back at the next turn.
                _log.warning("could not renew the lock: %s", error)

    def _content(self) -> bytes:
        value = {"owner": self.owner, "time_s": self._clock(), "token": self._token, **_this_process()}
        return json.dumps(value, indent=1, sort_keys=True).encode()

    def _is_mine(self) -> bool:
        with contextlib.suppress(MissingInputError):
            return bool(_parse(storage.read_bytes(self.path)).get("token") == self._token)
        return False

    def _busy(self, holder: dict[str, Any], age_s: float) -> BusyError:
        return BusyError(
            f"held by {_name(holder)}, renewed {age_s:.0f} s ago",
            place=self.path,
            next_step=f"Wait for it to end; a lock that is not renewed for {self.ttl_s:g} s is taken over",
        )


def _parse(content: bytes) -> dict[str, Any]:
    """The lock's fields; none of them for a file that is not a lock's JSON, which is judged by its time alone."""
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


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
