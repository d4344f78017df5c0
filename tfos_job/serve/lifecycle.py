"""Whether a server takes requests: not before it has answered one itself, and not while it drains."""

from __future__ import annotations

import threading
import time

from tfos_job.serve.refusals import Unavailable


class Lifecycle:
    """Starting, ready, draining. Threads may share it."""

    def __init__(self) -> None:
        self._is_ready = False
        self._draining_since_s: float | None = None
        self._lock = threading.Lock()

    @property
    def is_ready(self) -> bool:
        return self._is_ready and self._draining_since_s is None

    def begin(self) -> None:
        """From now on requests are taken."""
        self._is_ready = True

    def drain(self) -> None:
        """From now on requests are refused, but for those whose first byte has been read."""
        with self._lock:
            if self._draining_since_s is None:
                self._draining_since_s = time.monotonic()

    def require(self, began_s: float) -> None:
        """Raises Unavailable unless a request that began at this time, of `time.monotonic`, is to be answered."""
        if not self._is_ready:
            raise Unavailable("the server is starting", retry_after_s=5)
        since_s = self._draining_since_s
        if since_s is not None and began_s > since_s:
            raise Unavailable("the server is ending", retry_after_s=5)
