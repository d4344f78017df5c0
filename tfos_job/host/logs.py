"""The log of a process on stderr: lines of text, or JSON objects, each with its time and level."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from tfos_job.config.process import JSON, TEXT, ProcessConfig
from tfos_job.host import jvm_output

ROOT = "tfos_job"
"""The logger that all of this package's are below; those of libraries say warnings alone."""
_NOTHING = logging.NullHandler()
"""Takes what is logged after a command's last line: without any handler Python writes it to stderr by itself."""
_TEXT_LINE, _TEXT_TIME = "%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"


class JsonFormatter(logging.Formatter):
    """One JSON object a record; it is escaped, so that no encoding of stderr can refuse it."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self._command = command

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "command": self._command,
            "message": record.getMessage(),
        }
        if hasattr(record, "exit_code"):
            values["exit_code"] = record.exit_code
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """The time in ISO 8601 with milliseconds and zone."""
        at = time.localtime(record.created)
        zone = time.strftime("%z", at)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', at)}.{record.msecs:03.0f}{zone[:3]}:{zone[3:]}"


class _Stderr(logging.Handler):
    """Writes records to what stderr is at the time; a progress bar steps aside for each."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
            aside = tqdm.external_write_mode(file=sys.stderr) if tqdm is not None else contextlib.nullcontext()
            with aside, contextlib.suppress(OSError):  # results may still be wanted after stderr is closed
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
        except Exception:  # noqa: BLE001 - as all handlers do: a log line that fails ends nothing
            self.handleError(record)


class LogLines:
    """The log of a command on stderr, during a `with` block."""

    def __init__(self, command: str, argv: Sequence[str]) -> None:
        """Begins with what the words of the command line say, which are read in full later."""
        self._command = command
        self._handler = _Stderr()
        self._handler.addFilter(_is_not_py4js)
        self._root, self._own = logging.getLogger(), logging.getLogger(ROOT)
        self._before = self._root.level, self._own.level, logging.getLogger("py4j").level
        self.use(_as_far_as_said(argv))

    def __enter__(self) -> LogLines:
        jvm_output.silence(on=False)
        self._own.removeHandler(_NOTHING)
        self._root.setLevel(logging.WARNING)
        self._root.addHandler(self._handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._root.removeHandler(self._handler)
        for logger, level in zip((self._root, self._own, logging.getLogger("py4j")), self._before, strict=True):
            logger.setLevel(level)

    def use(self, process: ProcessConfig) -> None:
        """Takes form and level from the flags of the command."""
        self.process = process
        is_json = process.log_format == JSON
        self._handler.setFormatter(
            JsonFormatter(self._command) if is_json else logging.Formatter(_TEXT_LINE, _TEXT_TIME)
        )
        self._own.setLevel(logging.WARNING if process.quiet else logging.DEBUG if process.verbose else logging.INFO)
        logging.getLogger("py4j").setLevel(logging.NOTSET if process.debug else logging.CRITICAL)

    def say(self, text: str) -> None:
        """Says something that is for people, and not among the results, such as a table."""
        if self.process.log_format == JSON:
            self._own.info("%s", text)
        elif not self.process.quiet:
            _write(text)

    def fail(self, prefix: str, error: Exception, exit_code: int) -> None:
        """Says what a command ends with, in the last line of all: threads and the JVM may still have something to say.

        A reader of the log, be it a person or a scheduler that shows its last line, finds the cause there.
        """
        trace = error if self.process.debug else None
        if self.process.log_format == JSON:
            self._own.error("%s", error, exc_info=trace, extra={"exit_code": exit_code})
        else:
            if trace is not None:
                self._own.error("where the error comes from:", exc_info=trace)
            _write(f"{prefix}: error: {' '.join(str(error).split())}")
        jvm_output.silence(on=True)
        self._handler.addFilter(lambda _: False)
        self._own.addHandler(_NOTHING)


def shows_bars() -> bool:
    """True where progress is a bar: on a terminal, unless the log is for programs, or nobody wants to see progress."""
    is_for_programs = any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)
    return sys.stderr.isatty() and not is_for_programs and logging.getLogger(ROOT).isEnabledFor(logging.INFO)


def text_to_stderr() -> None:
    """Sets up the log of a process that is no command, such as a node's: text, in the file that its stderr is."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format=_TEXT_LINE, datefmt=_TEXT_TIME)
    logging.getLogger(ROOT).setLevel(logging.INFO)


def _as_far_as_said(argv: Sequence[str]) -> ProcessConfig:
    """The flags of a process, of words that may be wrong."""
    says_json = f"--log_format={JSON}" in argv or ("--log_format", JSON) in itertools.pairwise(argv)
    return ProcessConfig(log_format=JSON if says_json else TEXT)


def _is_not_py4js(record: logging.LogRecord) -> bool:
    """False for py4j's tracebacks of calls that a signal or the JVM's end cut off: the error has the cause."""
    return record.module != "java_gateway" or logging.getLogger("py4j").level == logging.NOTSET


def _write(text: str) -> None:
    if sys.stderr is None:  # it was closed before the process began
        return
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
