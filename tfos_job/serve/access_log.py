"""One line of JSON for each request."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from tfos_job.config.defaults import STDIN
from tfos_job.errors import SettingsError, StorageError
from tfos_job.host.results import ReaderGone

_log = logging.getLogger(__name__)


_PATIENCE_S = 1.0


class AccessLog:
    """Writes lines until nobody can take them; that ends the log, with a warning, and not the server.

    Where a line is not taken, as by a pipe whose reader has paused, its request waits. Those after it do not: their
    lines are left out, until the reader goes on.

    Args:
      write: takes a line; raises ReaderGone or StorageError.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write: Callable[[str], None] | None = write
        self._lock = threading.Lock()
        self._is_stalled = False

    def add(self, *, began_s: float, **values: Any) -> None:
        """Writes what is known of a request that began at `began_s`, of `time.monotonic`, and ends now."""
        took_s = time.monotonic() - began_s
        at = time.time() - took_s
        began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
        line = {"time": f"{began}.{int(at % 1 * 1000):03}Z", "ms": round(1000 * took_s, 2), **values}
        text = json.dumps(line)
        if not self._lock.acquire(timeout=0 if self._is_stalled else _PATIENCE_S):
            if not self._is_stalled:
                self._is_stalled = True
                _log.warning("The access log has a gap from here on: nobody reads it")
            return
        try:
            if self._write is not None:
                self._write(text)
            self._is_stalled = False
        except (ReaderGone, StorageError) as error:
            self._write = None
            _log.warning("The access log ends here: %s", str(error) or "its reader is gone")
        finally:
            self._lock.release()


def opened(path: str, to_stdout: Callable[[str], None]) -> AccessLog:
    """The access log in a file of this host, to which lines are appended, or on stdout.

    Raises:
      SettingsError: the file cannot be opened.
    """
    if path == STDIN:
        return AccessLog(to_stdout)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError as error:
        fact = f"cannot be opened: {error.strerror}"
        raise SettingsError(
            fact, place=f"--access_log {path}", next_step="Give a file in a folder of this host"
        ) from error
    return AccessLog(lambda line: _append(descriptor, path, line))


def _append(descriptor: int, path: str, line: str) -> None:
    data = f"{line}\n".encode()
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", place=path) from error
