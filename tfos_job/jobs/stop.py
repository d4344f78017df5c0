"""SIGINT and SIGTERM on the driver, as a flag that the job looks at."""

from __future__ import annotations

import logging
import signal
from typing import Any

from tfos_job.errors import InterruptedJobError

log = logging.getLogger(__name__)


class StopSignal:
    """SIGINT and SIGTERM as a flag for the length of a `with`; the second one interrupts at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        self.install()
        return self

    def install(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(signum, self._handle)
            self._before.setdefault(signum, before)

    def _handle(self, signum: int, _: Any) -> None:
        if self.signum is not None:
            raise InterruptedJobError("interrupted twice: ended without a last checkpoint", signum=signum)
        self.signum = signum
        log.warning("%s: writing a last checkpoint, then stopping", signal.Signals(signum).name)

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
