"""The standard error of a JVM that Spark's launcher starts, without the one line that is about the launcher itself.

Spark starts every JVM with `--add-modules=jdk.incubator.vector` (its launcher's `JavaModuleOptions`), for MLlib, and
the JVM warns of that before it has read any setting. No option of Java or Spark leaves out the module or the warning.
All other lines are passed on as they come.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import IO

_WARNING = "WARNING: Using incubator modules: jdk.incubator.vector"
_BLOCK_BYTES = 1 << 16
_is_silent = threading.Event()


def is_launchers_own(line: str) -> bool:
    """True for the warning that every JVM of Spark begins with."""
    return line.rstrip() == _WARNING


def pass_on(stream: IO[bytes]) -> threading.Thread:
    """Takes the lines of a JVM's standard error to this process's own, on a thread that ends with the JVM.

    This one is heard, even if a command of this process has failed before.
    """
    silence(on=False)
    thread = threading.Thread(target=_pass_on, args=(stream,), name="JVM stderr", daemon=True)
    thread.start()
    return thread


def silence(*, on: bool) -> None:
    """Passes on nothing more, until this is taken back: a JVM that ends has words of its own about that."""
    (_is_silent.set if on else _is_silent.clear)()


def _pass_on(stream: IO[bytes]) -> None:
    last = b""
    with stream:
        # Not through the stream's own buffer, whose lock a thread may not hold when the interpreter ends.
        while block := os.read(stream.fileno(), _BLOCK_BYTES):
            *lines, last = (last + block).split(b"\n")
            _write(b"".join(line + b"\n" for line in lines if not is_launchers_own(line.decode(errors="replace"))))
    _write(last)


def _write(text: bytes) -> None:
    if _is_silent.is_set():
        return
    with contextlib.suppress(OSError):  # ours is closed; the JVM must not wait for a reader
        os.write(2, text)
