"""`tfos-job COMMAND`: the process that a command runs in.

stdout carries results, stderr everything else. Heavy libraries are imported by the command that needs them, so that
`--help` and a wrong flag answer at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.commands import general, parser
from tfos_job.commands.command import Context
from tfos_job.commands.parser import CommandLine
from tfos_job.commands.registry import COMMANDS, SUBMIT, SUBMIT_HELP
from tfos_job.errors import FlagError, JobError
from tfos_job.host import container, process_environment, signals
from tfos_job.host.logs import LogLines
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    text = general.answer({name: command.help for name, command in COMMANDS.items()} | {SUBMIT: SUBMIT_HELP}, words)
    if text is not None and words:
        return general.print_answer(text)
    if text is not None:
        print(text, file=sys.stderr, flush=True)
        return FlagError.exit_code
    with signals.raised(), LogLines(words[0], words) as lines:
        return _main(words, lines)


def _main(argv: list[str], lines: LogLines) -> int:
    os.umask(os.umask(0o022) | 0o002)  # what a command writes is never for all others to write
    changes = process_environment.settle_process()
    name = argv[0]
    outcome = Outcome(name)
    try:
        _begin_in_cluster(name)
        outcome.begin()  # After the context: a slow NameNode must not keep YARN waiting for that.
        line = parser.parse(COMMANDS, argv)
    except (Exception, KeyboardInterrupt) as e:  # noqa: BLE001 - as in `_run`
        ended = as_job_error(e, _when_stopped(name))
        return _conclude(outcome, lines, name, ended.exit_code, ended)
    except SystemExit as e:
        outcome.end(int(e.code or 0), None)
        raise
    lines.use(line.process)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for change in changes:
        log.debug("%s", change)
    with Results() as results:
        context = Context(
            master=line.process.master,
            process=line.process,
            is_debug=line.process.debug,
            emit=Emit(outcome, results),
            write=results.write,
            say=lines.say,
        )
        exit_code, error = _run(line, context)
    return _conclude(outcome, lines, name, exit_code, error)


def _conclude(outcome: Outcome, lines: LogLines, command: str, exit_code: int, error: JobError | None) -> int:
    outcome.end(exit_code, error)
    if error is not None:
        lines.fail(f"tfos-job {command}" if command in COMMANDS else "tfos-job", error, exit_code)
    return exit_code


def _begin_in_cluster(name: str) -> None:
    if container.under_spark_submit():  # others need not import pyspark for this
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
