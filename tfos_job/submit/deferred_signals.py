"""SIGINT and SIGTERM, raised at chosen points of the program."""

from __future__ import annotations

import signal

from tfos_job.host.signals import Received, Stopped


class DeferredSignals:
    """Handlers during a `with` block: `check` raises `Stopped` after a signal; a second signal raises at once."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._received = Received()
        self._before: dict[int, object] = {}

    def __enter__(self) -> DeferredSignals:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _handle(self, signum: int, _: object) -> None:
        if not self._received.is_news(signum):
            return
        if self._signum is not None:
            raise Stopped(signum)
        self._signum = signum

    def check(self) -> None:
        if self._signum is not None:
            raise Stopped(self._signum)
