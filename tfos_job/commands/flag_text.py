"""A flag on the command line: its value from text, and the words that the text may be."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfos_job.config.flags import checked, is_inherited, kind_of
from tfos_job.config.values import OFF

NONE = "none"
"""Takes back what a run has."""
_MAX_METAVAR = 40
TRUTHS = {"true": True, "false": False}


def takes_none(item: dataclasses.Field[Any]) -> bool:
    """True if `none` takes back what a run has."""
    return is_inherited(item) and str(item.type) != kind_of(item)


def is_switch(item: dataclasses.Field[Any]) -> bool:
    """True for a flag that has no value."""
    return kind_of(item) == "bool" and not is_inherited(item)


def has_names(item: dataclasses.Field[Any]) -> bool:
    """True for a flag whose words are most of its values, and not beside numbers or names that cannot be counted."""
    named = item.metadata.get("choices") or item.metadata.get("path") or _names(item)
    return bool(named) or (kind_of(item) == "bool" and not is_switch(item))


def words(item: dataclasses.Field[Any]) -> list[str]:
    """The words that a flag takes, as far as they can be counted."""
    found = list(map(str, item.metadata.get("choices") or item.metadata.get("path") or ()))
    if kind_of(item) == "bool" and not is_switch(item):
        found += TRUTHS
    found += _names(item)
    if "off" in item.metadata:
        found.append(OFF)
    return [*found, NONE] if takes_none(item) else found


def are_many(item: dataclasses.Field[Any]) -> bool:
    """True for words that do not fit beside their flag in a line of `--help`."""
    return len("|".join(words(item))) > _MAX_METAVAR


def _names(item: dataclasses.Field[Any]) -> tuple[str, ...]:
    """Names that a flag takes beside others."""
    form = item.metadata.get("form")
    return tuple(item.metadata.get("names", ())) if form is None else form.names


def metavar(item: dataclasses.Field[Any]) -> str:
    """The value of a flag, for its line of `--help`."""
    if "metavar" in item.metadata:
        return str(item.metadata["metavar"])
    kind, choices = kind_of(item), item.metadata.get("choices")
    if choices:
        return "|".join(words(item)) if not are_many(item) else "WORD"
    if kind == "bool":
        return "|".join(TRUTHS)
    if "path" in item.metadata:
        return "DIR" if item.name.endswith("_dir") else "PATH"
    return {"int": "N", "float": "X"}.get(kind, "NAME" if item.name.endswith("_name") else "TEXT")


def read(item: dataclasses.Field[Any], text: str) -> Any:
    """The value of a flag.

    Raises:
      FlagError: the flag does not accept it.
    """
    kind = kind_of(item)
    if text == NONE and takes_none(item):
        return None
    value: Any = text
    if text == OFF and "off" in item.metadata:
        value = item.metadata["off"]
    elif kind == "bool":
        value = TRUTHS.get(text, text)
    elif kind in ("int", "float"):
        value = _number(text, int if kind == "int" else float)
    if kind.startswith("tuple"):  # one of its elements
        checked(item, (text,))
        return text
    return checked(item, value)


def write(item: dataclasses.Field[Any], value: Any) -> list[str]:
    """The words of a command line that give the flag this value; none where it has none to give."""
    if "nargs" in item.metadata:
        return list(value)
    if is_switch(item):
        return [f"--{item.name}"] if value else []
    if isinstance(value, tuple):
        return [f"--{item.name}={each}" for each in value]
    if value is None:
        return [f"--{item.name}={NONE}"] if takes_none(item) else []
    return [f"--{item.name}={str(value).lower() if isinstance(value, bool) else value}"]


def _number(text: str, kind: type[int | float]) -> Any:
    """The number, or the text where it is none, about which the check of its flag has the words."""
    try:
        return kind(text)
    except ValueError:
        return text
