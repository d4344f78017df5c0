"""`tfos-job COMMAND`: the process that a command runs in.

stdout carries results, stderr everything else. Heavy libraries are imported by the command that needs them, so that
`--help` and a wrong flag answer at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.commands import general, parser
from tfos_job.commands.command import Context
from tfos_job.commands.parser import CommandLine
from tfos_job.commands.registry import COMMANDS, SUBMIT, SUBMIT_HELP
from tfos_job.errors import FlagError, JobError
from tfos_job.host import process_environment, signals
from tfos_job.host.results import ReaderGone, Results
from tfos_job.outcome import Outcome

log = logging.getLogger("tfos_job")


@dataclass(frozen=True)
class Emit:
    """Takes results, as JSON values, to standard output and to the host that has submitted the command."""

    outcome: Outcome
    results: Results

    def __call__(self, value: Any) -> None:
        self.outcome.add(value)
        self.results.add(value)


def parse_config(name: str, flags: Sequence[str], other_flags: Iterable[str] = ()) -> Any:
    """The configuration of a command from its flags, as `main` would read them.

    Args:
      name: the command.
      flags: its flags, with their values.
      other_flags: of a program around this one, which a wrong flag may have meant.

    Raises:
      FlagError: a flag that does not exist or is missing, or a value that is not accepted.
      SettingsError: values that do not go together.
      JobError: the settings of the run that is resumed cannot be read.
    """
    return parser.configuration(COMMANDS[name], parser.parse(COMMANDS, [name, *flags], other_flags).given)


def _say(line: str) -> None:
    """Writes a line to stderr; the results may still be wanted after stderr is closed."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _prepare_process(*, debug: bool) -> None:
    """Sets up logs on stderr, with libraries quiet unless something is wrong."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    if not debug:
        logging.getLogger("py4j").setLevel(logging.CRITICAL)
        logging.getLogger().addFilter(_is_not_py4js)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _is_not_py4js(record: logging.LogRecord) -> bool:
    """False for py4j's tracebacks of calls that a signal or the JVM's end cut off: the error has the cause."""
    return record.module != "java_gateway"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    text = general.answer({name: command.help for name, command in COMMANDS.items()} | {SUBMIT: SUBMIT_HELP}, words)
    if text is not None:
        print(text, file=sys.stdout if words else sys.stderr, flush=True)
        return 0 if words else FlagError.exit_code
    with signals.raised():
        return _main(words)


def _main(argv: list[str]) -> int:
    changes = process_environment.settle_process()
    name = argv[0] if argv else ""
    outcome = Outcome(name)
    try:
        _begin_in_cluster(name)
        outcome.begin()  # After the context: a slow NameNode must not keep YARN waiting for that.
        line = parser.parse(COMMANDS, argv)
    except (JobError, KeyboardInterrupt) as e:
        ended = as_job_error(e, _when_stopped(name))
        return _conclude(outcome, name, ended.exit_code, ended)
    except SystemExit as e:
        outcome.end(int(e.code or 0), None)
        raise
    process = line.process
    _prepare_process(debug=process.debug)
    if process.verbose:
        log.setLevel(logging.DEBUG)
    for change in changes:
        log.debug("%s", change)
    with Results() as results:
        context = Context(
            master=process.master,
            is_debug=process.debug,
            emit=Emit(outcome, results),
            write=results.write,
            say=_say,
        )
        exit_code, error = _run(line, context)
    if error is not None and process.debug:
        logging.getLogger().error("", exc_info=error)
    return _conclude(outcome, name, exit_code, error)


def _conclude(outcome: Outcome, command: str, exit_code: int, error: JobError | None) -> int:
    if error is not None:
        _say(f"tfos-job {command}: error: {error}" if command in COMMANDS else f"tfos-job: error: {error}")
    outcome.end(exit_code, error)
    return exit_code


def _begin_in_cluster(name: str) -> None:
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit's variable: others need not import pyspark for this
        from tfos_job.driver import session

        if session.in_cluster_mode():
            submission = COMMANDS[name].submission if name in COMMANDS else None
            session.begin_in_cluster(trains=submission is not None and submission.trains)


def _run(line: CommandLine, context: Context) -> tuple[int, JobError | None]:
    try:
        line.command.run(parser.configuration(line.command, line.given), context)
        return 0, None
    except ReaderGone:
        return 128 + signal.SIGPIPE, None
    except (Exception, KeyboardInterrupt) as e:  # noqa: BLE001 - a bug must end with its own exit code, too
        error = as_job_error(e, line.command.when_stopped)
    return error.exit_code, error


def _when_stopped(name: str) -> str:
    return COMMANDS[name].when_stopped if name in COMMANDS else ""


def as_job_error(error: BaseException, when_stopped: str) -> JobError:
    """The error that a command ends with, from what it raised: a signal or a `JobError`; anything else is a bug."""
    judged = signals.interruption(error, when_stopped) or error
    if not isinstance(judged, JobError):
        from tfos_job import storage  # which `--help` need not import

        summary = next(iter(str(error).splitlines()), "")
        judged = storage.full_disk(error) or JobError(
            f"{type(error).__name__}: {summary}", next_step="This is a bug; run again with --debug for the traceback"
        )
    if judged is not error:
        judged.__cause__ = error
    return judged
