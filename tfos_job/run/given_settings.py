"""Which settings of a run were given, and the command line that gives them. Pure."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfos_job.config import COMMAND, TrainConfig

_WORDS = {None: "–", True: "yes", False: "no"}


class Setting(NamedTuple):
    """A setting, as text; `default` is empty for a required one and for those of other versions."""

    name: str
    value: str
    default: str


def text(value: Any) -> str:
    """A setting as it was given: no thousands separators, no rounding."""
    return _WORDS[value] if value is None or isinstance(value, bool) else str(value)


def split(settings: Mapping[str, Any]) -> tuple[list[Setting], list[Setting]]:
    """The settings that differ from this version's defaults, required ones first, and those that do not."""
    fields = {item.name: item for item in dataclasses.fields(TrainConfig)}
    changed, same = [], []
    for name in sorted(settings, key=lambda name: (name not in fields or _has_default(fields[name]), name)):
        item = fields.get(name)
        if item is None or not _has_default(item):
            changed.append(Setting(name, text(settings[name]), ""))
        elif settings[name] != item.default:
            changed.append(Setting(name, text(settings[name]), text(item.default)))
        else:
            same.append(Setting(name, text(settings[name]), text(item.default)))
    return changed, same


def command(settings: Mapping[str, Any]) -> list[str]:
    """The command line that trains with these settings, in parts of a flag and its value; empty without any."""
    parts = []
    for item in sorted(dataclasses.fields(TrainConfig), key=_has_default):  # what is required first
        if item.name not in settings or (item.metadata.get("bond") is COMMAND and _has_default(item)):
            continue
        value = settings[item.name]
        if not _has_default(item) or value != item.default:
            parts.append(shlex.join([f"--{item.name}", _flag_text(value)]))
    return ["tfos-job train", *parts] if parts else []


def _flag_text(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _has_default(item: dataclasses.Field[Any]) -> bool:
    return item.default is not dataclasses.MISSING
