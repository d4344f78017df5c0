"""Flags as fields of frozen dataclasses. A field's metadata is all that a flag is.

`--help`, docs/reference.md and the checks of values are derived from it, so that no choice or bound is written twice;
a configuration's own `__post_init__` holds combinations of flags alone.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import numbers
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tfos_job.errors import SettingsError

Config = TypeVar("Config")


class Bond(enum.Enum):
    """The effect of a flag of `train` on a run that is resumed: see `run/resume.py`."""

    RECIPE = "what is learned and how: inherited from the run; a change fails without --change_settings"
    EXTENT = "where and how much: inherited from the run, and free to change"
    ORIGIN = "where a run begins: inherited until the run has a checkpoint, ignored afterwards"
    COMMAND = "this command only"


RECIPE, EXTENT, ORIGIN, COMMAND = Bond.RECIPE, Bond.EXTENT, Bond.ORIGIN, Bond.COMMAND


@dataclass(frozen=True)
class TextForm:
    """The form of a text.

    Attributes:
      accepts: returns something true, such as a match, for a text of this form.
      fact: the message about any other text, with `{!r}` in its place.
      next_step: how to write it.
    """

    accepts: Callable[[str], object]
    fact: str
    next_step: str


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that a flag accepts. `above` and `below` are exclusive; `off` is the number that turns it off."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    off: float | None = None

    def accepts(self, value: float) -> bool:
        """True if `value` is in the range; infinity and NaN never are."""
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def fact(self, value: float) -> str:
        """The message about a number that is not accepted."""
        if self.maximum is None and self.below is None:
            if self.minimum is None:
                return f"{value} is not a {'positive, ' if self.above == 0 else ''}finite number"
            if isinstance(value, int):
                return f"{value} is less than {self.minimum:g}"
            return f"{value} is not a finite number of {self.minimum:g} or more"
        return f"{value} is not in {self._interval()}"

    def __str__(self) -> str:
        if self.above is not None and self.maximum is None:
            text = f"more than {self.above:g}"
        elif self.above is not None or self.below is not None:
            text = f"in {self._interval()}"
        else:
            text = self._interval() if self.maximum is not None else f"{self.minimum:g} or more"
        return text if self.off is None else f"{text} ({self.off:g}: off)"

    def _interval(self) -> str:
        if self.above is not None:
            return f"({self.above:g}, {self.maximum:g}]"
        if self.below is not None:
            return f"[{self.minimum:g}, {self.below:g})"
        return f"{self.minimum:g} to {self.maximum:g}"


_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PORT_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})", re.ASCII)


def port_range(text: str) -> tuple[int, int] | None:
    """First and last port of `LOW-HIGH`; None for any other text."""
    match = _PORT_RANGE.fullmatch(text)
    low, high = (int(match[1]), int(match[2])) if match else (0, 0)
    return (low, high) if 1024 <= low <= high <= 65535 else None


SPLIT_NAME = TextForm(
    _SPLIT_NAME.fullmatch,
    "{!r} is not a split name: it becomes a folder",
    "Use letters, digits, '-', '_' and '.', such as train or test",
)
PORT_RANGE = TextForm(
    port_range,
    "{!r} is not two ports from 1024 to 65535 with a '-' between them, the smaller first",
    "Write it as 40000-40099",
)


def flag(help_text: str, default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A dataclass field that is also a flag. Its name is the flag's name; without a default it is required.

    Args:
      help_text: what it is, with its unit.
      default: the default.
      **metadata: `choices`; the bounds of a `Range`; `form` (a `TextForm`); `next_step` (of the error about a bad
        value); `metavar`; `nargs` (then it is positional); `const` (the value of a flag without one); `bond` (a `Bond`,
        of each flag of `train`).
    """
    return field(default=default, metadata={"help": help_text, **metadata})


def path(help_text: str, default: Any = dataclasses.MISSING, *, words: tuple[str, ...] = (), **metadata: Any) -> Any:
    """A flag whose value is a path, or one of `words`."""
    return flag(help_text, default, path=words, **metadata)


def range_of(metadata: Mapping[str, Any]) -> Range | None:
    """The numbers that a flag accepts; None for all."""
    bounds = {item.name: metadata[item.name] for item in dataclasses.fields(Range) if item.name in metadata}
    return Range(**bounds) if bounds else None


def is_inherited(item: dataclasses.Field[Any]) -> bool:
    """True if a resumed run inherits the flag's value, so that a command may have to take it back."""
    return item.metadata.get("bond") in (RECIPE, EXTENT)


def own_first(config: type) -> list[dataclasses.Field[Any]]:
    """A configuration's flags; those that it shares with other commands come last."""

    def depth(item: dataclasses.Field[Any]) -> int:
        kinds = enumerate(config.__mro__)
        return next(at for at, kind in kinds if item.name in inspect.get_annotations(kind))

    return sorted(dataclasses.fields(config), key=depth)


def has_bonds(config: type) -> bool:
    """True if each flag has its effect on a resumed run."""
    return all("bond" in item.metadata for item in dataclasses.fields(config))


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The configuration of a command: raises SettingsError for values that its fields do not accept."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value is None:
                continue
            kind = str(item.type).removesuffix(" | None")
            value = _converted(value, kind)
            object.__setattr__(self, item.name, value)
            fact, next_step = _type_fact(value, kind), ""
            if not fact:
                fact, next_step = _refusal(value, item.metadata)
            require(not fact, item.name, fact, next_step)


def _converted(value: Any, kind: str) -> Any:
    """A number as Python's own `kind`: files and messages hold the same of 1, 1.0 and numpy's. Others as they are."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    if kind == "int" and isinstance(value, numbers.Integral):
        return operator.index(value)  # not by way of a float, which has no more than 53 bits
    number = float(value)
    if kind == "float":
        return number
    return int(number) if kind == "int" and number.is_integer() else value


def _type_fact(value: Any, kind: str) -> str:
    """The fact about a value of another type than its field's; empty for the right one."""
    if kind == "float":
        return "" if isinstance(value, float) else f"{value!r} is not a number"
    if kind == "int":
        return "" if isinstance(value, int) and not isinstance(value, bool) else f"{value!r} is not a whole number"
    if kind == "bool":
        return "" if isinstance(value, bool) else f"{value!r} is not true or false"
    return ""


def _refusal(value: Any, metadata: Mapping[str, Any]) -> tuple[str, str]:
    """Fact and next step about a value; both empty where it is accepted."""
    next_step = metadata.get("next_step", "")
    accepted, form, choices = range_of(metadata), metadata.get("form"), metadata.get("choices")
    if choices is not None and value not in choices:
        return f"{value!r} is not {either(choices)}", next_step
    if accepted is not None and not accepted.accepts(value):
        return accepted.fact(value), next_step
    if form is not None and not form.accepts(value):
        return form.fact.format(value), form.next_step
    return "", ""


def either(choices: Sequence[Any]) -> str:
    """`a, b or c`."""
    *most, last = map(str, choices)
    return f"{', '.join(most)} or {last}" if most else last


def require(condition: bool, name: str, fact: str, next_step: str = "") -> None:
    """Raises the SettingsError of a flag unless the condition holds."""
    if not condition:
        raise SettingsError(fact, place=f"--{name}", next_step=next_step)


def refuse_both(is_both: bool, name: str, other: str, next_step: str = "Give one of them") -> None:
    """Raises the SettingsError of a flag that was given together with another one."""
    require(not is_both, name, f"given together with --{other}", next_step)


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as JSON values."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """The inverse of `to_dict`.

    Raises:
      SettingsError: a key the configuration does not have, or a bad value.
    """
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise SettingsError(
            f"unknown setting{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}",
            place=kind.__name__,
            next_step=f"Known: {', '.join(sorted(known))}",
        )
    return kind(**values)


def paths(config: Any) -> dict[str, str]:
    """The flags of a command that are paths, and have one."""
    found = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if "path" in item.metadata and isinstance(value, str) and value and value not in item.metadata["path"]:
            found[item.name] = value
    return found
