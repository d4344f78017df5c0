"""docs/reference.md: every flag of every command, and the exit codes, from the declarations of the commands.

    python scripts/reference.py --write     writes the file
    python scripts/reference.py --check     fails and shows the difference if the file is stale

A flag's row is the metadata of its field; the flags of `submit` come from its parser. Exit codes: 0, 1 (the file
is stale), 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tfos_job import errors
from tfos_job.commands import flag_text, help_text
from tfos_job.commands.registry import COMMANDS
from tfos_job.config import Bond
from tfos_job.config.flags import by_subject, has_bonds, kind_of, label
from tfos_job.config.process import ProcessConfig
from tfos_job.config.values import OFF, range_of
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
    2: "a command or flag that does not exist, a flag that is missing, or a value that its flag does not accept",
    65: "bad data, too many bad records, digests that do not match",
    66: "input, dataset or checkpoint missing",
    69: "a resource was not available in time: slots, containers, nodes, a port; or memory for a batch ran out",
    70: "a bug: an unexpected exception",
    71: "a node died, more often than `--max_restarts` allows",
    74: "the file system failed after all retries",
    75: "another job holds the same folder; preempted more often than `--max_preemptions` allows",
    76: "training diverged (NaN, Inf)",
    77: "permission, quota, authentication",
    78: "settings that contradict each other, or what is on disk, such as two flags of which one may be given",
    130: "SIGINT",
    143: "SIGTERM",
}
COMPLETION = """## Completion

| shell | line for its startup file | completes |
|---|---|---|
| bash | `source <(tfos-job --print_completion bash)` | commands, flags, words, paths |
| zsh, after `compinit` | `eval "$(tfos-job --print_completion zsh)"` | commands, flags, words, paths |
| tcsh | `tfos-job --print_completion tcsh > ~/.tfos-job.tcsh; source ~/.tfos-job.tcsh` | commands, words, paths |
""".splitlines()
KINDS = {"int": "whole number", "float": "number", "str": "text"}
COUNTS = {"+": "one or more", "*": "any number"}


class Row(NamedTuple):
    """One flag: texts of its cells, in Markdown."""

    flag: str
    value: str
    default: str
    help: str
    bond: str = ""


def render() -> str:
    """The whole file."""
    common = [_row_of_field(item) for item in dataclasses.fields(ProcessConfig)]
    lines = [HEAD, *_exit_codes(), "", "## Flags of every command", "", *_table(common)]
    of_spark = _codes(name for name, command in COMMANDS.items() if command.on_spark)
    lines += ["", f"`--master` is a flag of {of_spark} alone.", "", *COMPLETION]
    for name, command in COMMANDS.items():
        lines += ["", f"## {name}", "", f"{command.help[:1].upper()}{command.help[1:]}.", *_flags(command.config)]
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
    """A configuration's flags by their subjects."""
    lines = []
    if has_bonds(config):
        lines += [
            "",
            "*On resumption* of a run, a flag is one of these ([training.md](training.md#resuming-a-run)):",
            "",
            *(f"- {_bond(bond)}: {_markdown(bond.value)}" for bond in Bond),
        ]
    subjects = by_subject(config)
    for subject, items in subjects.items():
        note = help_text.group_note(config, (item.name for item in items))
        title = f"**{subject.value[:1].upper()}{subject.value[1:]}**" if len(subjects) > 1 else ""
        if title or note:
            lines += ["", f"{title}{': ' if title and note else ''}{_markdown(note or '')}"]
        rows = [_row_of_field(item) for item in items]
        lines += ["", *_table(rows if has_bonds(config) else (row._replace(bond="") for row in rows))]
    return lines


def _row_of_field(item: dataclasses.Field[Any]) -> Row:
    bond = item.metadata.get("bond")
    text, default = help_text.split_default(item.metadata["help"])
    names = [label(item), *([f"-{item.metadata['short']}"] if "short" in item.metadata else [])]
    return Row(
        flag=_codes(names),
        value=COUNTS[item.metadata["nargs"]] if "nargs" in item.metadata else _value(item),
        default=_markdown(default) or _default(item),
        help=_markdown(text),
        bond=_bond(bond) if bond is not None else "",
    )


def _value(item: dataclasses.Field[Any]) -> str:
    metadata, kind = item.metadata, kind_of(item)
    if flag_text.is_switch(item):
        return NOTHING
    if "choices" in metadata or kind == "bool":
        return _codes(flag_text.words(item))
    if "metavar" in metadata:
        value = _codes(metadata["metavar"].split("|"))
    else:
        value = "path" if "path" in metadata else KINDS[kind]
        numbers = range_of(metadata)
        value += f", {_markdown(str(numbers)).replace(OFF, f'`{OFF}`')}" if numbers is not None else ""
    return f"{value}, `{flag_text.NONE}`" if flag_text.takes_none(item) else value


def _default(item: dataclasses.Field[Any]) -> str:
    word = help_text.default_word(item)
    if item.default is dataclasses.MISSING:
        return help_text.need(item) or "required"
    return NOTHING if not word else word if flag_text.is_switch(item) else _codes([word])


def _bond(bond: Bond) -> str:
    return f"*{bond.name.lower()}*"


# --- flags of parsers ------------------------------------------------------------------------------------------------
# argparse has no public access to a parser's arguments: its `_action_groups` are read here alone.


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
    text, default = help_text.split_default(action.help or "")
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


def _markdown(text: str) -> str:
    """A help text as Markdown: flags as code, Markdown's own marks escaped."""
    pieces = " ".join(text.split()).split("`")
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
