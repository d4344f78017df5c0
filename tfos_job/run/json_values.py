"""Conversion between dataclasses and the JSON values sent to a child process: strict, so that no field is lost."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tfos_job.errors import SettingsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Value = TypeVar("Value", bound="DataclassInstance")


def to_json(value: DataclassInstance) -> dict[str, Any]:
    """A dataclass as JSON values: all of its fields, nested ones too."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dataclasses.asdict(value)))
    return found


def from_json(kind: type[Value], values: Any) -> Value:
    """The inverse of `to_json`.

    Raises:
      SettingsError: a field is missing, though it has a default; one is unknown; or a value has another type.
    """
    try:
        found = msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _misfit(kind, str(error)) from error
    # msgspec passes over keys that it does not know, and takes defaults.
    if difference := _difference(values, dataclasses.asdict(found), "$"):
        raise _misfit(kind, difference)
    return found


def _difference(given: Any, taken: Any, place: str) -> str | None:
    """The first key that one side alone has."""
    if isinstance(given, dict) and isinstance(taken, dict):
        for key in sorted(given.keys() ^ taken.keys()):
            return f"{'unknown' if key in given else 'missing'} field `{key}` - at `{place}`"
        return next(filter(None, (_difference(given[key], taken[key], f"{place}.{key}") for key in given)), None)
    return None


def _misfit(kind: type, fact: str) -> SettingsError:
    return SettingsError(
        f"not a {kind.__name__}: {fact}",
        next_step="Driver and child process run different versions: install one version everywhere",
    )
