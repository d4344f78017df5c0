"""`--config FILE`: flags from a file, weaker than those of the command line.

The file is YAML or JSON, on any storage. It is either flat, with flags of the command that reads it, or has a section
for each command; what stands beside the sections holds for each command that has such a flag:

    dataset_dir: hdfs:///user/me/hwdb/data
    convert:
      gnt_dir: hdfs:///user/me/gnt/train
    train:
      train_dir: hdfs:///user/me/hwdb/run
      epoch: 10

Or it is the record of a run: its `config.json`, or one of its `attempts/NNN.json`. That is for another run: what
belongs to one command alone (`train_dir`, `overwrite` …) is not taken from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from tfos_job import storage
from tfos_job.commands import flag_text, settings_document
from tfos_job.commands.command import Command
from tfos_job.commands.settings_document import Node, Tree
from tfos_job.config import COMMAND, LENGTHS, RECIPES
from tfos_job.config.flags import alternatives, checked, kind_of
from tfos_job.config.nearest import nearest, suggestion
from tfos_job.errors import BadDataError, FlagError

FLAG = "config"
_OF_A_RECORD = {"train_dir", "overwrite", "change_settings"}  # nobody writes all of these by hand
_EXCLUSIVE = (LENGTHS, ("charset", "charset_size"), ("runs", "train_dir"), ("quiet", "verbose"))
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
_KINDS |= {"tuple[str, ...]": "a list of texts"}

Items = Mapping[str, dataclasses.Field[Any]]


def with_file(values: Mapping[str, Any], command: Command, commands: Mapping[str, Command]) -> dict[str, Any]:
    """The flags of a command line, on those of the file that its `--config` names.

    A flag of the command line replaces that of the file, and others that say the same in another way.

    Raises:
      JobError: as `read` does.
    """
    found = read(values[FLAG], command, commands, has_train_dir="train_dir" in values, recipe=values.get("recipe"))
    sets = (*_EXCLUSIVE, *alternatives(command.config).values())
    replaced = {name for names in sets if not values.keys().isdisjoint(names) for name in names}
    return {**{name: value for name, value in found.items() if name not in replaced}, **values}


def read(
    path: str,
    command: Command,
    commands: Mapping[str, Command],
    *,
    has_train_dir: bool = True,
    recipe: str | None = None,
) -> dict[str, Any]:
    """The flags that a file gives a command, by name.

    Args:
      path: of the file, on any storage.
      command: the command.
      commands: those that may have a section, by name.
      has_train_dir: the command line names the run's folder, which a record of another run does not.
      recipe: that of the command line. It replaces what a record says, which has a value for each of its settings.

    Raises:
      MissingInputError: there is no such file.
      BadDataError: it is neither YAML nor JSON.
      FlagError: a key that is no flag or is there twice, or a value that its flag does not accept.
    """
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadDataError(f"not UTF-8: {error}", place=path, next_step="Save it as UTF-8") from error
    tree = settings_document.parse(text, path)
    record = _record(tree)
    items = flags_of(command)
    if command.sections:
        return _of_sections(tree, path, command, commands)
    if record is not None:
        nodes = _of_record(record, command, path, has_train_dir=has_train_dir, recipe=recipe)
    else:
        nodes = _of_command(tree, path, command, commands)
    return {name: _value(_item(name, node, items, command, commands, path), node, path) for name, node in nodes.items()}


def flags_of(command: Command) -> dict[str, dataclasses.Field[Any]]:
    """The flags that a file may give a command, by name."""
    return {item.name: item for item in command.flags if item.name != FLAG}


# --- which part of the file ------------------------------------------------------------------------------------------


def _record(tree: Tree) -> Tree | None:
    """The settings of a run in its record; None if the file is none."""
    settings = tree["settings"].value if {"attempt", "settings"} <= tree.keys() else tree
    return settings if isinstance(settings, dict) and settings.keys() >= _OF_A_RECORD else None


def _of_record(record: Tree, command: Command, path: str, *, has_train_dir: bool, recipe: str | None) -> Tree:
    if command.name != "train":
        raise FlagError(
            f"it holds the settings of a run, which are flags of train, not of {command.name}",
            place=path,
            next_step="Write a file with the command's own flags",
        )
    if not has_train_dir:
        raise FlagError(
            "--train_dir is needed: the settings of a run are taken for another one",
            place=path,
            next_step=f"Give --train_dir. The run itself goes on with --train_dir {record['train_dir'].value} alone",
        )
    left_out = {item.name for item in dataclasses.fields(command.config) if item.metadata.get("bond") is COMMAND}
    if recipe in RECIPES:
        left_out |= {*RECIPES[recipe].settings, *LENGTHS}
    return {name: node for name, node in record.items() if name not in left_out}


def _of_command(tree: Tree, path: str, command: Command, commands: Mapping[str, Command]) -> Tree:
    """The nodes of a command: those of a flat file, or those above all sections and those of its own section."""
    sections = {name: node for name, node in tree.items() if name in commands or isinstance(node.value, dict)}
    if not sections:
        return tree
    for name, node in sections.items():
        place = settings_document.place(path, node.line)
        if name not in commands:
            raise FlagError(f"there is no command {name}", place=place, next_step=suggestion(name, commands))
        if not isinstance(node.value, dict | None):
            raise FlagError(f"{name} is a command", place=place, next_step="Write its flags into the lines below it")
    shared = {name: node for name, node in tree.items() if name not in sections}
    known = {name: flags_of(other).keys() for name, other in commands.items()}
    of_any = {flag for flags in known.values() for flag in flags}
    for name, node in shared.items():
        if name not in of_any:
            raise _no_flag(name, node, path, "any command", of_any)
    own = sections[command.name].value if command.name in sections else None
    return {**{name: node for name, node in shared.items() if name in known[command.name]}, **(own or {})}


def _of_sections(tree: Tree, path: str, command: Command, commands: Mapping[str, Command]) -> dict[str, Any]:
    """The flags of a command of which some are sections with flags of others: each a list of `NAME=VALUE`."""
    items, found = flags_of(command), {}
    for name, node in tree.items():
        place = settings_document.place(path, node.line)
        if name in command.not_yet:
            raise FlagError(
                f"{name} is not something {command.name} does", place=place, next_step=command.not_yet[name]
            )
        if name not in items:
            raise _no_flag(name, node, path, command.name, items)
        if name not in command.sections or isinstance(node.value, list):  # a list: as on the command line
            found[name] = _value(items[name], node, path)
            continue
        if not isinstance(node.value, dict | None):
            raise FlagError(f"{name} is a section", place=place, next_step="Write its flags into the lines below it")
        of = commands[command.sections[name]]
        own = {item.name: item for item in dataclasses.fields(of.config)}
        words = []
        for key, each in (node.value or {}).items():
            if key not in own:
                raise _no_flag(key, each, path, of.name, own)
            words += flag_text.write(own[key], _value(own[key], each, path))
        found[name] = tuple(word.removeprefix("--") for word in words)
    return found


# --- one setting -----------------------------------------------------------------------------------------------------


def _item(
    name: str, node: Node, items: Items, command: Command, commands: Mapping[str, Command], path: str
) -> dataclasses.Field[Any]:
    """The flag of a key."""
    if name in items and "nargs" in items[name].metadata:
        raise FlagError(
            f"{name} is no flag",
            place=settings_document.place(path, node.line),
            next_step=f"Give {items[name].metadata['metavar']} on the command line",
        )
    if name in items:
        return items[name]
    others = [other.name for other in commands.values() if name in flags_of(other)]
    if others:
        raise FlagError(
            f"{name} is no flag of {command.name}",
            place=settings_document.place(path, node.line),
            next_step=f"It is one of {', '.join(others)}: in a file for several commands those of {command.name} stand "
            f"below a line `{command.name}:`",
        )
    raise _no_flag(name, node, path, command.name, items)


def _no_flag(name: str, node: Node, path: str, of: str, known: Iterable[str]) -> FlagError:
    near = nearest(name, sorted(known))
    return FlagError(
        f"{name} is no flag of {of}",
        place=settings_document.place(path, node.line),
        next_step=f"Did you mean {near}?" if near else "docs/reference.md has the flags",
    )


def _value(item: dataclasses.Field[Any], node: Node, path: str) -> Any:
    """The value of a flag.

    Raises:
      FlagError: the flag does not accept it.
    """
    value, place = node.value, settings_document.place(path, node.line)
    expected = _KINDS[kind_of(item)]
    if isinstance(value, list) and kind_of(item).startswith("tuple"):
        value = tuple(value)
    if isinstance(value, dict | list):
        kind = "a list" if isinstance(value, list) else "settings of their own"
        raise FlagError(f"{item.name}: {kind}, not {expected}", place=place)
    if value is None and not str(item.type).endswith("| None"):
        raise FlagError(f"{item.name}: nothing, not {expected}", place=place, next_step="Leave the line out")
    try:
        if isinstance(value, str) and value in flag_text.words(item):
            return flag_text.read(item, value)  # `off`, `none`
        return checked(item, value)
    except FlagError as error:
        step = error.next_step
        if expected == _KINDS["str"] and not isinstance(value, str):
            step = f'Write it in quotes: "{value}"'
        raise FlagError(f"{item.name}: {error.fact}", place=place, next_step=step) from None
