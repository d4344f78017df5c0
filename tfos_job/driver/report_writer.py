"""A thread that writes JSON files: whoever waits for a slow NameNode, it is not the one who trains."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from tfos_job import storage
from tfos_job.errors import StorageError

log = logging.getLogger(__name__)

_PATIENCE_S = 30.0
"""Seconds for what nobody waits for: a newer report will follow."""
FLUSH_S = _PATIENCE_S + 120.0
"""Seconds to wait for at most: for what is being written, then for the newest with the whole patience of `storage`."""

Document = Callable[[], Mapping[str, Any]]
"""Makes a file's content, on the thread."""


class ReportWriter:
    """Writes the newest content of each file. All is written on one thread, so nothing older comes after newer.

    A write that fails ends nothing: it is tried again together with the next one.
    """

    def __init__(self) -> None:
        self._pending: dict[str, Document] = {}
        self._taken: dict[str, Document] = {}  # what is being written
        self._is_due = self._is_awaited = self._is_closed = False
        self._begun = self._ended = 0  # rounds, in each of which all that is pending is written
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, path: str, document: Document) -> None:
        """Writes a file, soon; returns at once."""
        with self._changed:
            if self._is_closed:
                return
            self._pending[path] = document
            self._wake()

    def flush(self, limit_s: float = FLUSH_S) -> None:
        """Waits until all is written.

        Raises:
          JobError: it could not be written, or not in time.
        """
        with self._changed:
            if not self._pending and self._ended >= self._begun:
                return
            self._is_awaited = True
            self._wake()
            goal = self._begun + 1
            try:
                is_done = self._changed.wait_for(lambda: self._ended >= goal, limit_s)
            finally:
                self._is_awaited = False
            failure = self._failure
            path = next(iter((*self._taken, *self._pending)), "")
        if not is_done:
            step = "See whether its file system is up, and run the command again"
            raise StorageError(f"not written within {limit_s:.0f} s", place=path, next_step=step)
        if failure is not None:
            raise failure

    def hold(self, limit_s: float = FLUSH_S) -> None:
        """Begins to write nothing more before the next `put` or `flush`, and waits for what is being written."""
        with self._changed:
            self._is_due = False
            self._changed.wait_for(lambda: self._ended >= self._begun, limit_s)

    def close(self) -> None:
        """Takes nothing more, forgets what is not written, and says nothing more."""
        with self._changed:
            self._is_closed = True
            self._pending.clear()
            self._changed.notify_all()

    def _wake(self) -> None:
        self._is_due = True
        if self._thread is None:
            # A daemon: a file system that hangs must not keep the process from its end.
            self._thread = threading.Thread(target=self._run, name="report", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_due or self._is_closed)
                if not self._is_due:
                    return
                self._is_due = False
                self._begun += 1
                self._taken, self._pending = self._pending, {}
                is_awaited = self._is_awaited
            failed, failure = self._write(self._taken, is_awaited=is_awaited)
            with self._changed:
                self._taken = {}
                if not self._is_closed:
                    self._pending = {**failed, **self._pending}
                    if failure is not None and self._failure is None and not is_awaited:
                        log.warning("Not written now, but with what comes next: %s", failure)
                self._failure = failure
                self._ended += 1
                self._changed.notify_all()

    def _write(
        self, taken: Mapping[str, Document], *, is_awaited: bool
    ) -> tuple[dict[str, Document], Exception | None]:
        """Returns what could not be written, and the first reason."""
        failed: dict[str, Document] = {}
        failure: Exception | None = None
        for path, document in taken.items():
            try:
                with contextlib.nullcontext() if is_awaited else storage.within(_PATIENCE_S):
                    storage.write_json(path, document())
            except Exception as error:  # noqa: BLE001 - whatever it is, the next content may be written
                failed[path] = document
                failure = failure or error
        return failed, failure
