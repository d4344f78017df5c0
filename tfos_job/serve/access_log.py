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
_MOST_LINES = 10_000  # that wait to be written
_PAUSE_S = 0.1  # in which lines gather


class AccessLog:
    """Writes lines, on a thread of its own, until nobody can take them; that ends the log, with a warning, and nothing
    else.

    Where lines are not taken, as by a pipe whose reader has paused, no request waits: they are kept up to a number, and
    those after them are left out, until the reader goes on.

    Args:
      write: takes lines, without the last one's end; raises ReaderGone or StorageError.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._lines: list[str] = []
        self._num_left_out = 0
        self._is_over = False
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def add(self, *, began_s: float, **values: Any) -> None:
        """Writes what is known of a request that began at `began_s`, of `time.monotonic`, and ends now."""
        took_s = time.monotonic() - began_s
        at = time.time() - took_s
        began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
        line = {"time": f"{began}.{int(at % 1 * 1000):03}Z", "ms": round(1000 * took_s, 2), **values}
        text = json.dumps(line)
        with self._changed:
            if len(self._lines) >= _MOST_LINES:
                self._num_left_out += 1
            elif not self._is_over:
                self._lines.append(text)
                if len(self._lines) == 1:
                    self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Ends it when all lines are written, or after a time."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._closed.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while lines := self._next():
                self._write("\n".join(lines))
                self._say_gap()
                self._closed.wait(_PAUSE_S)
        except (ReaderGone, StorageError) as error:
            _log.warning("The access log ends here: %s", str(error) or "its reader is gone")
            with self._changed:
                self._is_over = True
                self._lines.clear()

    def _say_gap(self) -> None:
        """Says how many lines are missing; here, since the log may go where the lines go, which nobody may read."""
        with self._changed:
            number, self._num_left_out = self._num_left_out, 0
        if number:
            _log.warning("The access log has a gap of %d lines: nobody read it", number)

    def _next(self) -> list[str]:
        """Waits for lines; none once it is closed and all are written."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._is_over)
            lines, self._lines = self._lines, []
            return lines


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
