"""SIGINT and SIGTERM on the driver, as flags that the job looks at."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping
from typing import Any

from tfos_job.host import signals
from tfos_job.host.signals import Received, Stopped

log = logging.getLogger(__name__)


class StopSignal:
    """SIGINT and SIGTERM as flags for the length of a `with`; on another thread than the main one none of them comes.

    Attributes:
      signum: the first signal: stop in good order.
      hurry: a second signal has come: stop without waiting for a checkpoint. A third one interrupts the clean-up.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.hurry = False
        self._received = Received()
        self._before: Mapping[int, Any] = {}

    def __enter__(self) -> StopSignal:
        self._before = signals.install(self._handle)
        return self

    def _handle(self, signum: int, _: Any) -> None:
        if not self._received.is_news(signum):
            return
        name = signal.Signals(signum).name
        if self.hurry:
            log.warning("%s for the third time: processes may be left", name)
            raise Stopped(signum)
        if self.signum is not None:
            self.hurry = True
            log.warning("%s again: stopping at once", name)
        else:
            self.signum = signum
            log.warning("%s: stopping, with a last checkpoint where training has begun", name)

    def __exit__(self, *_: Any) -> None:
        signals.restore(self._before)
