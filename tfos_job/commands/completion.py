"""The script that completes command lines of `tfos-job` in a shell, from the declarations of the commands."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.commands import flag_text, general, help_text
from tfos_job.commands.command import Command
from tfos_job.commands.parser import CommandParser
from tfos_job.config.values import either
from tfos_job.errors import FlagError
from tfos_job.host.logs import LogLines

FLAG = "--print_completion"
SHELLS = ("bash", "zsh", "tcsh")


@dataclass(frozen=True)
class Submit:
    """The program that submits commands, and takes their flags as well as its own.

    Attributes:
      name: its name.
      help: its help text.
      add_flags: adds its flags to a parser.
    """

    name: str
    help: str
    add_flags: Callable[[argparse.ArgumentParser], None]


def answer(argv: Sequence[str], commands: Mapping[str, Command], submit: Submit) -> int:
    """Prints the script that a command line asks for; returns the exit code."""
    shell = argv[0].partition("=")[2] or " ".join(argv[1:])
    if shell not in SHELLS:
        error = FlagError(f"{shell!r} is not {either(SHELLS)}", place=FLAG)
        LogLines(FLAG, argv).fail("tfos-job", error, error.exit_code)
        return error.exit_code
    return general.print_answer(script(commands, shell, submit))


def script(commands: Mapping[str, Command], shell: str, submit: Submit) -> str:
    """The script, to be read by the shell.

    Args:
      commands: all commands by name.
      shell: one of `SHELLS`.
      submit: what submits commands.
    """
    import shtab  # which nothing else needs

    parser = argparse.ArgumentParser(prog="tfos-job", add_help=False)
    for flag in ("--help", "--version"):
        parser.add_argument(flag, action="store_true", help="")
    parser.add_argument(FLAG, choices=SHELLS, help="print this script")
    made: Any = functools.partial(_completed, shtab)
    subparsers = parser.add_subparsers(parser_class=made, dest="command")
    for command in commands.values():
        subparsers.add_parser(command.name, help=command.help, command=command)
    of_submit = subparsers.add_parser(submit.name, help=submit.help)
    submit.add_flags(of_submit)
    submitted = of_submit.add_subparsers(parser_class=made)
    for command in commands.values():
        if command.submission is not None:
            submit.add_flags(submitted.add_parser(command.name, help=command.help, command=command))
    return str(shtab.complete(parser, shell=shell))


def _completed(shtab: Any, *, prog: str, command: Command | None = None) -> argparse.ArgumentParser:
    """A command's flags with what completes their values."""
    if command is None:
        return argparse.ArgumentParser(prog=prog)
    parser = CommandParser(command, prog, conflict_handler="resolve")  # `submit` has another --master
    for item in command.flags:
        action = parser.actions[item.name]
        # One line without marks that a shell may take for its own.
        action.help = help_text.split_default(item.metadata["help"])[0].partition(";")[0].replace("`", "")
        action.metavar = str(action.metavar).replace(":", ".")
        if flag_text.has_names(item):
            action.choices = flag_text.words(item)
        if "path" in item.metadata:
            is_folder = item.name.endswith("_dir") or item.metadata.get("metavar") == "DIR"
            action.complete = shtab.DIRECTORY if is_folder else shtab.FILE  # type: ignore[attr-defined]
    return parser
