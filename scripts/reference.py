"""docs/reference.md: every flag of every command, and the exit codes, from the declarations of the commands.

    python scripts/reference.py --write     writes the file
    python scripts/reference.py --check     fails and shows the difference if the file is stale

A flag's row is the metadata of its field; flags that no configuration has (`--master`, those of `submit`)
come from their parsers. Exit codes: 0, 1 (the file is stale), 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tfos_job import cli, errors
from tfos_job.commands.registry import COMMANDS
from tfos_job.config import Bond
from tfos_job.config.flags import has_bonds, is_inherited, own_first, range_of
from tfos_job.submit.main import make_parser as make_submit_parser

PATH = Path(__file__).resolve().parents[1] / "docs" / "reference.md"
WRITE = "python scripts/reference.py --write"
NOTHING = "–"

HEAD = f"""<!-- Generated. `{WRITE}` writes this file; the texts are those of the commands' `--help`. -->

# Reference

What the commands are for: [README](../README.md), [data.md](data.md), [training.md](training.md) and, on a cluster,
[operations.md](operations.md). A command's flags are also in `tfos-job COMMAND --help`.
"""
EXIT_CODES = {
    0: "done, or already done",
    2: "an unknown flag, or a value that is empty, not UTF-8 or not one of the choices",
    65: "bad data, too many bad records, digests that do not match",
    66: "input, dataset or checkpoint missing",
    69: "a resource was not available in time: slots, containers, a port",
    70: "a bug: an unexpected exception",
    71: "a node died",
    74: "the file system failed after all retries",
    75: "another job holds the same folder; preempted",
    76: "training diverged (NaN, Inf)",
    77: "permission, quota, authentication",
    78: "settings that contradict each other, or what is on disk",
    130: "SIGINT",
    143: "SIGTERM",
}
KINDS = {int: "whole number", float: "number", str: "text"}


class Row(NamedTuple):
    """One flag: texts of its cells, in Markdown."""

    flag: str
    value: str
    default: str
    help: str
    bond: str = ""


def render() -> str:
    """The whole file."""
    lines = [HEAD, *_exit_codes(), "", "## Flags of every command", "", *_table(_common())]
    for name, command in COMMANDS.items():
        lines += ["", f"## {name}", "", f"{command.help[:1].upper()}{command.help[1:]}.", "", *_flags(command.config)]
    return "\n".join([*lines, "", *_submit(), ""])


# --- exit codes ------------------------------------------------------------------------------------------------------


def _exit_codes() -> list[str]:
    kinds = {kind.exit_code: kind for kind in errors.JobError.__subclasses__() if kind.__module__ == errors.__name__}
    untold = set(kinds) - set(EXIT_CODES)
    if untold:
        raise ValueError(f"exit code {min(untold)} has no text: add it to EXIT_CODES of scripts/{Path(__file__).name}")
    rows = []
    for code, text in EXIT_CODES.items():
        is_retryable = kinds[code].retryable if code in kinds else False
        retry = "as you like" if code > 128 else NOTHING if code == 0 else "yes" if is_retryable else "no"
        rows.append(f"| {code} | {text} | {retry} |")
    return ["## Exit codes", "", "| code | when | worth a retry |", "|---|---|---|", *rows]


# --- flags of configurations -----------------------------------------------------------------------------------------


def _flags(config: type) -> list[str]:
    """A configuration's flags: its own, then those that it shares with other commands."""
    hints = typing.get_type_hints(config)
    rows = [_row_of_field(field, hints[field.name]) for field in own_first(config)]
    if not has_bonds(config):
        return _table(row._replace(bond="") for row in rows)
    return [
        "*On resumption* of a run, a flag is one of these ([training.md](training.md#resuming-a-run)):",
        "",
        *(f"- {_bond(bond)}: {_markdown(bond.value)}" for bond in Bond),
        "",
        *_table(rows),
    ]


def _row_of_field(field: dataclasses.Field[Any], hint: Any) -> Row:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    bond = field.metadata.get("bond")
    inherited = is_inherited(field)
    text, default = _split_default(field.metadata["help"])
    is_positional = "nargs" in field.metadata
    return Row(
        flag=_codes([field.metadata["metavar"] if is_positional else f"--{field.name}"]),
        value="one or more" if is_positional else _value(field.metadata, kinds, inherited=inherited),
        default=_markdown(default) or _default(field.default, inherited=inherited),
        help=_markdown(text),
        bond=_bond(bond) if bond is not None else "",
    )


def _value(metadata: Mapping[str, Any], kinds: tuple[Any, ...], *, inherited: bool) -> str:
    if "choices" in metadata:
        value = _codes(metadata["choices"])
    elif kinds[0] is bool:
        value = _codes(("true", "false")) if inherited else NOTHING
    elif "metavar" in metadata:
        value = _codes(metadata["metavar"].split("|"))
    else:
        value = "path" if "path" in metadata else KINDS[kinds[0]]
        numbers = range_of(metadata)
        value += f", {numbers}" if numbers is not None else ""
    takes_none = inherited and types.NoneType in kinds
    return f"{value}, `none`" if takes_none else value


def _default(value: Any, *, inherited: bool) -> str:
    if value is dataclasses.MISSING:
        return "required, unless the run has it" if inherited else "required"
    if value is False:
        return "`false`" if inherited else "off"
    if value is None or value == "":
        return NOTHING
    return _codes([f"{value:g}" if isinstance(value, float) else str(value)])


def _bond(bond: Bond) -> str:
    return f"*{bond.name.lower()}*"


# --- flags of parsers ------------------------------------------------------------------------------------------------
# argparse has no public access to a parser's arguments: its `_actions` and `_action_groups` are read here alone.


def _common() -> list[Row]:
    """The flags of commands that are not in their configurations."""
    parser = cli.make_parser()
    found: dict[str, tuple[argparse.Action, list[str]]] = {}
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, subparser in subparsers.choices.items():
        if name not in COMMANDS:
            continue  # only listed: it reads its words elsewhere
        own = {field.name for field in dataclasses.fields(COMMANDS[name].config)}
        for action in _shown(subparser._actions):
            if action.dest not in own:
                found.setdefault(action.dest, (action, []))[1].append(name)
    rows = []
    for action, names in found.values():
        row = _row_of_action(action)
        of = "" if len(names) == len(COMMANDS) else f" ({_codes(names)})"
        rows.append(row._replace(help=row.help + of))
    return rows


def _submit() -> list[str]:
    """The flags of `submit` itself."""
    parser = make_submit_parser()
    lines = ["## submit", "", f"`{parser.usage}`", "", str(parser.description)]
    shown = [action for group in parser._action_groups[:2] for action in _shown(group._group_actions)]
    lines += ["", *_table(map(_row_of_action, shown))]
    for group in parser._action_groups[2:]:
        title = _markdown(str(group.title))
        lines += ["", f"{title[:1].upper()}{title[1:]}:", "", *_table(map(_row_of_action, group._group_actions))]
    return lines


def _shown(actions: Iterable[argparse.Action]) -> list[argparse.Action]:
    return [action for action in actions if not isinstance(action, argparse._HelpAction)]


def _row_of_action(action: argparse.Action) -> Row:
    text, default = _split_default(action.help or "")
    if action.nargs == 0:
        value = NOTHING
    elif action.choices is not None:
        value = _codes(action.choices)
    elif isinstance(action.metavar, str):
        value = _codes(action.metavar.split("|"))
    else:
        value = "text"
    if action.required:
        default = "required"
    return Row(
        flag=_codes(action.option_strings or [str(action.metavar)]),
        value=value,
        default=_markdown(default) or ("off" if action.nargs == 0 else NOTHING),
        help=_markdown(text),
    )


# --- texts -----------------------------------------------------------------------------------------------------------


def _split_default(text: str) -> tuple[str, str]:
    """A help text, split from the default in parentheses at its end."""
    match = re.fullmatch(r"(.*?) \(default: (.*)\)", text, re.DOTALL)
    return (match[1], match[2]) if match else (text, "")


def _markdown(text: str) -> str:
    """A help text as Markdown: flags as code, Markdown's own marks escaped."""
    pieces = text.split("`")
    for at in range(0, len(pieces), 2):
        plain = re.sub(r"([*|<])", r"\\\1", pieces[at])
        pieces[at] = re.sub(r"(--[a-z]\w*)", r"`\1`", plain)
    return "`".join(pieces)


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(rows: Iterable[Row]) -> list[str]:
    rows = list(rows)
    titles = ["flag", "value", "default", "what"] + (["on resumption"] if any(row.bond for row in rows) else [])
    lines = [f"| {' | '.join(row[: len(titles)])} |" for row in rows]
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles), *lines]


def main() -> int:
    parser = argparse.ArgumentParser(description="The reference of flags and exit codes: docs/reference.md.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write the file")
    mode.add_argument("--check", action="store_true", help="fail if the file is stale")
    args = parser.parse_args()
    made = render()
    if args.write:
        PATH.write_text(made, "utf-8")
        return 0
    found = PATH.read_text("utf-8") if PATH.is_file() else ""
    if found == made:
        return 0
    changes = difflib.unified_diff(
        found.splitlines(), made.splitlines(), "docs/reference.md", "declared", lineterm="", n=0
    )
    print("\n".join(changes), file=sys.stderr)
    print(f"docs/reference.md is stale: run `{WRITE}`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
