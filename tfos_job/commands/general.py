"""What `tfos-job` says without a command: help, version, completion."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence

from tfos_job import __version__
from tfos_job.commands import help_text
from tfos_job.errors import StorageError
from tfos_job.host.logs import LogLines
from tfos_job.host.results import ReaderGone, print_text

_HELP = ("help", "--help", "-h")


def with_help_last(commands: Iterable[str], argv: Sequence[str]) -> list[str]:
    """`help train` as `train --help`; other command lines as they are."""
    return [argv[1], "--help"] if len(argv) == 2 and argv[0] in _HELP and argv[1] in commands else list(argv)


def answer(commands: Mapping[str, str], argv: Sequence[str]) -> str | None:
    """The text that a command line without a command asks for; None if it asks for none.

    Args:
      commands: the help texts of all commands, by name.
      argv: the command line.
    """
    if not argv or argv[0] in _HELP:
        return help_text.overview(commands)
    if argv[0] == "--version":
        return f"tfos_job {__version__}"
    return None


def print_answer(text: str) -> int:
    """Prints what was asked for; returns the exit code."""
    try:
        print_text(text)
    except ReaderGone:
        return 128 + signal.SIGPIPE
    except StorageError as error:
        LogLines("", []).fail("tfos-job", error, error.exit_code)
        return error.exit_code
    return 0
