"""A command's results on standard output: JSON values, one a line, and nothing else."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from types import TracebackType
from typing import Any

from tfos_job.errors import StorageError

_STDOUT, _STDERR = 1, 2


class ReaderGone(Exception):
    """The reader of the results has closed the pipe, as `| head` does."""


def to_json(value: Any, encoding: str | None) -> str:
    """Returns a value as one line of valid JSON that can be written in `encoding`.

    In UTF-8 characters are not escaped, except lone surrogates, which represent bytes of file names that are not UTF-8.
    """
    is_utf_8 = (encoding or "").lower().replace("_", "-") in ("utf-8", "utf8")
    text = json.dumps(value, ensure_ascii=not is_utf_8, sort_keys=True)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Results:
    """Standard output during a `with` block, for results alone.

    All other output of this process (of a library, a user's module, a child process) goes to standard error: the
    descriptor itself is redirected, not only Python's `sys.stdout`.
    """

    def __init__(self) -> None:
        self._stdout: int | None = None
        self._encoding: str | None = None

    def __enter__(self) -> Results:
        self._encoding = sys.stdout.encoding if sys.stdout is not None else None
        _flush()
        try:
            self._stdout = os.dup(_STDOUT)
        except OSError:
            return self  # standard output is closed: there is no reader
        try:
            os.dup2(_STDERR, _STDOUT)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, _STDOUT)
            os.close(nowhere)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stdout is None:
            return
        _flush()
        os.dup2(self._stdout, _STDOUT)
        os.close(self._stdout)
        self._stdout = None

    def add(self, value: Any) -> None:
        """Writes a JSON value; raises as `write` does."""
        self.write(to_json(value, self._encoding))

    def write(self, line: str) -> None:
        """Writes a line.

        Raises:
          ReaderGone: the reader has closed the pipe.
          StorageError: the file behind standard output cannot be written.
        """
        if self._stdout is None:
            return
        data = (line + "\n").encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._stdout, data) :]
        except OSError as error:
            raise _refused(error) from error


def escape_texts() -> None:
    """Lets standard output take texts in every locale: characters that its encoding lacks are escaped, as on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_text(text: str) -> None:
    """Writes a text for people to standard output; raises as `Results.write` does."""
    if sys.stdout is None:  # it was closed before the process began
        return
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDOUT)  # the interpreter's end writes what is left
        os.close(nowhere)
        raise _refused(error) from error


def _refused(error: OSError) -> ReaderGone | StorageError:
    if isinstance(error, BrokenPipeError):
        return ReaderGone()
    return StorageError(
        f"cannot write the results: {error.strerror}",
        place="standard output",
        next_step="Free some space, run again",
    )


def _flush() -> None:
    """Flushes buffered output to the current standard output; errors are ignored."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
