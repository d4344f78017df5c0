"""The parser of the command line: a flag is a field of a command's configuration."""

from __future__ import annotations

import argparse
import dataclasses
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tfos_job import __version__
from tfos_job.commands.command import Command
from tfos_job.config import Bond
from tfos_job.config.flags import has_bonds, is_inherited, own_first, range_of


def make_parser(commands: Iterable[Command], listed: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser of `tfos-job`, with one subcommand a command.

    Args:
      commands: all whose flags it reads.
      listed: names and help texts of those that are only listed: others read their words.
    """
    parser = argparse.ArgumentParser(
        prog="tfos-job",
        description="GNT shards to TFRecords to a trained classifier, with TensorFlowOnSpark.",
        epilog="Exit codes: docs/reference.md has the table. `tfos-job COMMAND --help` lists a command's flags.",
    )
    parser.add_argument("--version", action="version", version=f"tfos_job {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in commands:
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.help, allow_abbrev=False)
        hints = typing.get_type_hints(command.config)
        bonds = Bond if has_bonds(command.config) else ()
        groups = {bond: subparser.add_argument_group(bond.name.lower(), bond.value) for bond in bonds}
        for field in own_first(command.config):
            group = groups[field.metadata["bond"]] if groups else subparser
            _add_flag(group, field, hints[field.name])
        if command.on_spark:
            subparser.add_argument(
                "--master",
                help="Spark's master, such as local[4] or local-cluster[3,1,1024] (default: what spark-submit has set, "
                "else local Spark with a slot per core or per node, whichever is more)",
            )
        subparser.add_argument("--verbose", "-v", action="store_true", help="log more, such as overruled settings")
        subparser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    for name, text in listed.items():
        subparsers.add_parser(name, help=text, add_help=False)
    return parser


def configuration(command: Command, args: argparse.Namespace) -> Any:
    """The configuration of a command from its parsed flags.

    Raises:
      SettingsError: values that do not go together.
      JobError: the settings of the run that is resumed cannot be read.
    """
    names = (field.name for field in dataclasses.fields(command.config))
    given: Mapping[str, Any] = {name: getattr(args, name) for name in names if hasattr(args, name)}
    if command.configure is not None:
        return command.configure(given)
    return command.config(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _add_flag(parser: argparse._ActionsContainer, field: dataclasses.Field[Any], hint: Any) -> None:
    """Adds a flag. One that is not given leaves nothing in the result: the configuration has its default."""
    metadata, help_text = field.metadata, _help(field, hint)
    inherited = is_inherited(field)
    if "nargs" in metadata:
        parser.add_argument(
            field.name, type=_text, help=help_text, nargs=metadata["nargs"], metavar=metadata["metavar"]
        )
        return
    if hint is bool and not inherited:
        parser.add_argument(f"--{field.name}", action="store_true", default=argparse.SUPPRESS, help=help_text)
        return
    kind, is_optional = _value_type(hint)
    metavar, choices = metadata.get("metavar"), metadata.get("choices")
    if kind is bool:
        metavar = "true|false"
    elif choices and is_optional and inherited:
        metavar, choices = "|".join((*choices, "none")), (*choices, None)
    elif not choices:
        metavar = metavar or kind.__name__.upper()
    const = True if kind is bool else metadata.get("const")
    optional_value: dict[str, Any] = {} if const is None else {"nargs": "?", "const": const}
    read = _truth if kind is bool else _text if kind is str and field.default != "" else kind
    parser.add_argument(
        f"--{field.name}",
        type=_or_none(read, kind) if is_optional and inherited else read,
        required=field.default is dataclasses.MISSING and not inherited,
        default=argparse.SUPPRESS,
        help=help_text,
        metavar=metavar,
        choices=choices,
        **optional_value,
    )


def _help(field: dataclasses.Field[Any], hint: Any) -> str:
    """A flag's help text with its range and default."""
    text, numbers = field.metadata["help"], range_of(field.metadata)
    head, default, tail = text.partition(" (default: ")
    if numbers is not None:
        head += f", {numbers}" if "," not in head and ";" not in head else f"; {numbers}"
    if not default and hint is not bool and field.default not in (None, dataclasses.MISSING, ""):
        default, tail = " (default: ", f"{field.default})"
    return f"{head}{default}{tail}".replace("%", "%%")


def _value_type(hint: Any) -> tuple[type, bool]:
    """`int` of `int | None`, and True if it may be None."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not types.NoneType), True
    return typing.cast("type", hint), False


def _truth(text: str) -> bool:
    """Reads `true` or `false`, which takes back what a run has."""
    try:
        return {"true": True, "false": False}[text]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false") from None


def _or_none(read: Callable[[str], Any], kind: type) -> Callable[[str], Any]:
    """A reader that also reads `none`, which takes back what a run has."""

    def value(text: str) -> Any:
        return None if text == "none" else read(text)

    value.__name__ = kind.__name__
    return value


def _text(value: str) -> str:
    """Reads a path, a name or a list; raises ArgumentTypeError, which ends the command with exit code 2.

    A text that is not UTF-8 would fail later, in the first JSON file or the JVM.
    """
    if not value:
        raise argparse.ArgumentTypeError("its value is empty")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise argparse.ArgumentTypeError(f"its value is not UTF-8: {os.fsencode(value)!r}; give the path another name")
    return value
