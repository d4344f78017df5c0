"""The text of `--help`: a usage of one line, and flags in groups by their subjects."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from tfos_job.commands.command import Command
from tfos_job.commands.flag_text import are_many, metavar, words
from tfos_job.config import Bond
from tfos_job.config.flags import alternatives, has_bonds, is_inherited, kind_of, label
from tfos_job.config.values import OFF, either, range_of

_MIN_WIDTH, _MAX_WIDTH = 40, 120
_NARROW = 100  # columns; below, the texts begin further left


class HelpFormatter(argparse.HelpFormatter):
    """Uses the terminal's width up to 120 columns, and keeps line breaks of descriptions."""

    def __init__(self, prog: str) -> None:
        width = max(_MIN_WIDTH, min(shutil.get_terminal_size().columns, _MAX_WIDTH) - 1)
        super().__init__(prog, max_help_position=26 if width < _NARROW else 38, width=width)

    def _format_usage(self, usage: str | None, *_: Any) -> str:
        text = f"usage: {(usage or '') % {'prog': self._prog}}"
        return textwrap.fill(text, self._width, subsequent_indent="  ", break_on_hyphens=False) + "\n\n"

    def _split_lines(self, text: str, width: int) -> list[str]:
        # As argparse does, but that lines stay lines, and no flag and no `local-cluster` is cut at its dashes.
        lines = (" ".join(line.split()) for line in text.splitlines())
        return [part for line in lines for part in textwrap.wrap(line, width, break_on_hyphens=False)]

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = (
            textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent + " " * _hang(line))
            for line in text.splitlines()
        )
        return "\n".join(lines)


def _hang(line: str) -> int:
    """The indent of a line's continuation: the second column, where there are two."""
    head, gap, _ = line.strip().partition("  ")
    if not gap:
        return 0
    return len(line) - len(line[line.index(head) + len(head) :].lstrip())


def usage(command: Command) -> str:
    """What must be given."""
    config = command.config
    choices = alternatives(config).values()
    needed = [
        f"--{item.name} {metavar(item)}"
        for item in dataclasses.fields(config)
        if item.default is dataclasses.MISSING and "nargs" not in item.metadata and not is_inherited(item)
    ]
    by_name = {item.name: item for item in dataclasses.fields(config)}
    one_of = [f"({' | '.join(f'--{name} {metavar(by_name[name])}' for name in names)})" for names in choices]
    positional = [f"{label(item)} …" for item in by_name.values() if "nargs" in item.metadata]
    return " ".join(["%(prog)s", *one_of, *needed, "[flags]", *positional])


def flag_help(item: dataclasses.Field[Any], *, with_bond: bool) -> str:
    """A flag's help text with its range, default and bond."""
    text, default = split_default(item.metadata["help"])
    numbers = range_of(item.metadata)
    default = default or ("" if kind_of(item) == "bool" else default_word(item))
    chosen = f"one of {', '.join(words(item))}" if "choices" in item.metadata and are_many(item) else ""
    notes = [chosen, str(numbers) if numbers is not None else "", f"default: {default}" if default else need(item)]
    shown = "; ".join(filter(None, notes))
    mark = f" [{item.metadata['bond'].name.lower()}]" if with_bond else ""
    return f"{text}{f' ({shown})' if shown else ''}{mark}".replace("%", "%%")


def split_default(text: str) -> tuple[str, str]:
    """A help text, split from the default in parentheses at its end."""
    match = re.fullmatch(r"(.*?) \(default: (.*)\)", text, re.DOTALL)
    return (match[1], match[2]) if match else (text, "")


def need(item: dataclasses.Field[Any]) -> str:
    """Whether a flag must be given."""
    if item.default is not dataclasses.MISSING or "nargs" in item.metadata:
        return ""
    return "required, unless the run has it" if is_inherited(item) else "required"


def default_word(item: dataclasses.Field[Any]) -> str:
    """A flag's default in a word; empty without one."""
    value = item.default
    if value in (None, dataclasses.MISSING, "", ()):
        return ""
    if value is False:
        return "false" if is_inherited(item) else OFF
    if "off" in item.metadata and value == item.metadata["off"]:
        return OFF
    return f"{value:g}" if isinstance(value, float) else str(value)


def description(command: Command) -> str:
    """The text below the usage."""
    note = "\nThe words in brackets, such as [recipe], are explained at the end." if has_bonds(command.config) else ""
    return f"{command.help[:1].upper()}{command.help[1:]}.{note}"


def legend(config: type) -> str:
    """What the marks of the flags mean; empty without any."""
    if not has_bonds(config):
        return ""
    width = max(len(bond.name) for bond in Bond) + 2
    marks = (f"  {f'[{bond.name.lower()}]':<{width}}  {bond.value}" for bond in Bond)
    return "\n".join(["on a run that is resumed, a flag is one of these:", *marks])


def group_note(config: type, names: Iterable[str]) -> str | None:
    """Which flags of a group are alternatives."""
    shown = set(names)
    notes = [
        f"exactly one of {either([f'--{name}' for name in group])}"
        for group in alternatives(config).values()
        if shown & set(group)
    ]
    return "; ".join(notes) or None


def overview(commands: Mapping[str, str]) -> str:
    """The text of `tfos-job --help`; `commands` are the help texts by name."""
    width = max(map(len, commands))
    return "\n".join(
        [
            "usage: tfos-job COMMAND [flags]",
            "",
            "GNT shards or images to TFRecords to a trained classifier, with TensorFlowOnSpark.",
            "",
            *(f"  {name:<{width}}  {text}" for name, text in commands.items()),
            "",
            "`tfos-job COMMAND --help` lists a command's flags; `tfos-job --version` prints the version;",
            "`source <(tfos-job --print_completion bash)` completes them (zsh, tcsh: docs/reference.md).",
            "Exit codes: 0 is done, 2 a wrong flag; docs/reference.md has the others.",
        ]
    )
