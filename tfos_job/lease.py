"""A lock file that admits one writer at a time; its holder renews it.

The file contains JSON: `owner`, `host`, `pid`, `pid_namespace`, `process_started`, `time_s` (of writing), a `token`
that is unique to the holder, and numbers that the holder has announced. The holder rewrites the file every third of
`ttl_s`. Another job takes the lock over at once if the holder's process ran on this host and has ended. Otherwise it
watches the file and takes the lock over when the file has not changed for `ttl_s`. The time of day only decides whether
to watch at all, so wrong clocks do no harm.

While the file system does not answer, nobody can renew the lock, and watching starts from the beginning afterwards.
So a holder keeps its lock over an outage of any length. Before it publishes, a holder calls `check`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tfos_job import storage
from tfos_job.errors import BusyError, JobError, MissingInputError, StorageError
from tfos_job.host import process_identity
from tfos_job.lock_file import TTL_S, Watch, holder_of, name_of, parse, require, steady_s, watched, written_s

_ATTEMPTS = 8
_CHECKS = 4  # tries of half of `ttl_s` each: as long as other calls wait for HDFS
_MAX_POLL_S = 2.0
_log = logging.getLogger(__name__)


class Lease:
    """The lock file at `path`, held during a `with` block.

    Args:
      path: of the lock file; its folder is created if it is missing.
      owner: description of the holder for those who wait, such as `tfos-job convert`.
      ttl_s: seconds without a change after which others may take over. The holder renews it every third of that.
      wait_s: seconds to wait for a holder that seems alive; for a caller who knows that it must have ended.
      clock: returns seconds that nobody sets.

    Raises:
      BusyError: another process holds the lock.
    """

    def __init__(
        self,
        path: str,
        owner: str,
        ttl_s: float = TTL_S,
        *,
        wait_s: float = 0.0,
        clock: Callable[[], float] = steady_s,
    ) -> None:
        self.path = path
        self.owner = owner
        self.ttl_s = ttl_s
        self.wait_s = wait_s
        self.token = uuid.uuid4().hex
        self._fields: dict[str, int] = {}
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
            if holder_of(self.path).get("token") == self.token:
                storage.remove(self.path)
        except JobError as failure:  # the work is done, and the lock expires soon
            _log.warning("could not release the lock: %s", failure)

    def check(self) -> None:
        """Verifies that this process holds the lock and renews it, so that nobody takes it over for `ttl_s`.

        Call it before publishing: a holder that was suspended or disconnected may have lost its lock.

        Raises:
          BusyError: another process holds the lock, or the file is gone.
          StorageError: the file system does not answer.
        """
        for tries_left in reversed(range(_CHECKS)):
            try:
                return self._prove()
            except StorageError as error:
                if not tries_left:
                    raise
                _log.warning("could not renew the lock, trying again: %s", error)

    def announce(self, **fields: int) -> None:
        """Writes numbers, which may only be raised, into the lock file, and keeps them there.

        A process that works on behalf of this one and has a lower number stops before it publishes
        (`lock_file.require`): so the holder fences off what it has started before. Raises as `check` does.
        """
        self._fields = self._fields | fields
        self.check()

    def _prove(self) -> None:
        """Verifies and renews within half of `ttl_s`, so that nobody can take the lock over in between."""
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
        """Checks the result of the last renewal, without reading the file.

        Raises:
          BusyError: another process holds the lock, or the file is gone.
        """
        if self._loss is not None:
            raise self._loss

    def _acquire(self) -> None:
        deadline_s = self._clock() + self.wait_s
        watch: Watch | None = None
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
            now_s, holder = self._clock(), parse(content)
            has_changed = watch is not None and watch.content != content
            watch = watched(watch, content, now_s, self.ttl_s)
            if watch.is_over(self.ttl_s):
                _log.warning("taking over the lock %s of %s, which does not renew it", self.path, name_of(holder))
                self._set_aside(content)
                continue
            age_s = self._age_s(holder)
            if (has_changed or abs(age_s) <= self.ttl_s) and now_s >= deadline_s:
                raise self._busy(holder, 0.0 if has_changed else age_s)
            if watch.since_s == now_s:
                _log.info("watching the lock %s of %s for up to %g s", self.path, name_of(holder), self.ttl_s)
            time.sleep(min(_MAX_POLL_S, self.ttl_s / 10))

    def _age_s(self, holder: dict[str, Any]) -> float:
        """Returns the lock's age, by this host's clock and the writer's."""
        with contextlib.suppress(MissingInputError):
            return time.time() - (written_s(holder) or storage.stat(self.path).mtime_s)
        return 0.0

    def _set_aside(self, stale: bytes) -> None:
        """Removes the lock file if it still has the stale content that was read.

        Two processes may find the same stale file. Only one rename of *it* succeeds, but the slower process may rename
        the quicker one's new lock. So the content of the renamed file is compared, and put back if it is another. (A
        third process that creates a lock in between holds it, and the other one learns that from `check`.)
        """
        renamed = f"{self.path}.{self.token}.stale"
        try:
            storage.rename(self.path, renamed)
        except MissingInputError:
            return
        moved = storage.read_bytes(renamed)
        if moved != stale:
            storage.create_exclusive(self.path, moved)
        storage.remove(renamed)

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
                pause_s = self.ttl_s / 10  # renew soon after the file system answers: others begin to watch then

    def _content(self) -> bytes:
        value = {"owner": self.owner, "time_s": time.time(), "token": self.token, **process_identity.this_process()}
        value |= self._fields
        return json.dumps(value, indent=1, sort_keys=True).encode()

    def _busy(self, holder: dict[str, Any], age_s: float) -> BusyError:
        return BusyError(
            f"held by {name_of(holder)}, renewed {max(0.0, age_s):.0f} s ago",
            place=self.path,
            next_step=f"Wait for it to end; a lock that is not renewed for {self.ttl_s:g} s is taken over",
        )
