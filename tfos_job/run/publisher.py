"""Checkpoints that are written while training goes on: in order, in a thread, with retention in another one."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from tfos_job.errors import JobError
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoints
from tfos_job.run.retention import Retention

MAX_HELD = 2
"""Snapshots in memory: one that is being written, and one that waits or is being taken."""

_log = logging.getLogger(__name__)


class Publisher:
    """Publishes a run's checkpoints behind the steps. All methods are called by the thread that trains.

    What is handed over is done in its order, one at a time, and nothing is done any more after a failure. So what is
    recorded after a checkpoint is recorded only if that checkpoint stands.
    """

    def __init__(
        self,
        run: RunLayout,
        *,
        guard: Callable[[], None] = lambda: None,
        attempt: int = 0,
        is_hurried: Callable[[], bool] = lambda: False,
    ) -> None:
        """Starts with nothing to do.

        Args:
          run: the run.
          guard: called before a checkpoint is published, or others are removed; raises if the run is somebody else's.
          attempt: the number of this attempt; 0 outside of one.
          is_hurried: true when somebody waits for the end: then retention is left to the next training.
        """
        self._run = run
        self._guard = guard
        self._attempt = attempt
        self._is_hurried = is_hurried
        self._retention = Retention(run, guard, attempt)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="retain")
        self._writing: deque[Future[None]] = deque()
        self._retaining: Future[None] | None = None
        self._error: BaseException | None = None

    def trust(self, path: str) -> None:
        """Tells of a checkpoint of the run that this process has read through."""
        self._retention.trust(path)

    def check(self) -> None:
        """Raises what has failed so far: a training that cannot save must end."""
        if self._error is not None:
            raise self._error

    def has_room(self) -> bool:
        """True if a further snapshot can be taken without holding more than `MAX_HELD`."""
        while self._writing and self._writing[0].done():
            self._writing.popleft()
        return len(self._writing) < MAX_HELD

    def wait_for_room(self) -> None:
        """Waits until `has_room`; raises as `check` does."""
        while not self.has_room():
            self._writing[0].result()
        self.check()

    def publish(
        self, step: int, variables: Mapping[str, np.ndarray], meta: Mapping[str, Any], then: Callable[[str], None]
    ) -> None:
        """Publishes a checkpoint; see `checkpoints.publish`. `then` is called with its folder, in the same thread."""

        def write() -> None:
            path = checkpoints.publish(self._run, step, variables, meta, self._guard, self._attempt)
            self._retention.trust(path)
            then(path)
            self._retain_behind()

        self._writing.append(self._writer.submit(self._unless_failed, write))

    def record(self, act: Callable[[], None]) -> None:
        """Calls `act` once all checkpoints before stand."""
        self._writer.submit(self._unless_failed, act)

    def _unless_failed(self, act: Callable[[], None]) -> None:
        if self._error is None:
            try:
                act()
            except BaseException as error:  # noqa: BLE001 - `check` raises it in the thread that trains
                self._error = error

    def _retain_behind(self) -> None:
        if self._is_hurried():
            return
        if self._retaining is not None:
            self._retaining.cancel()  # the new one does its work, if it has not begun
        self._retaining = self._keeper.submit(self._unless_failed, self._retain)

    def _retain(self) -> None:
        try:
            self._retention.apply()
        except JobError as error:  # no reason to end a training: the next save tries it again
            _log.warning("checkpoints that are not needed any more were not removed: %s", error)

    def finish_writing(self) -> None:
        """Waits for what was handed over: the variables are here, even if other processes have died meanwhile."""
        self._writer.shutdown(wait=True)

    def close(self) -> None:
        """Waits for everything, without retention if `is_hurried`; raises as `check` does."""
        self.finish_writing()
        if self._is_hurried():
            self._keeper.shutdown(wait=False, cancel_futures=True)
        else:
            self._keeper.shutdown(wait=True)
        self.check()
