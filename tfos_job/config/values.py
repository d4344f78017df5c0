"""The values that a flag accepts: numbers in a range, one of some words, a text of a form. Pure."""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.config.nearest import nearest


@dataclass(frozen=True)
class TextForm:
    """The form of a text.

    Attributes:
      accepts: returns something true, such as a match, for a text of this form.
      fact: the message about any other text, with `{!r}` in its place.
      next_step: how to write it.
      names: words of this form, of which the nearest may have been meant.
      word: finds, in a text of another form, the word that should be one of `names`; by default it is all of it.
    """

    accepts: Callable[[str], object]
    fact: str
    next_step: str
    names: tuple[str, ...] = ()
    word: Callable[[str], str] = str


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
        if self.off is not None:
            return f"{self._but_off()} or {OFF}"
        if self.above is not None and self.maximum is None:
            return f"more than {self.above:g}"
        if self.above is not None or self.below is not None or self.maximum is not None:
            return f"in {self._interval()}" if self.above is not None or self.below is not None else self._interval()
        return f"{self.minimum:g} or more"

    def _but_off(self) -> str:
        """The numbers of a flag that can be turned off; all of them are more than nothing."""
        if self.off != self.minimum:
            return f"in {self._interval()}"
        if self.maximum is not None:
            return f"up to {self.maximum:g}"
        return f"below {self.below:g}" if self.below is not None else f"more than {self.minimum:g}"

    def _interval(self) -> str:
        if self.above is not None:
            return f"({self.above:g}, {self.maximum:g}]"
        if self.below is not None:
            return f"[{self.minimum:g}, {self.below:g})"
        return f"{self.minimum:g} to {self.maximum:g}"


OFF = "off"
"""The word for the number that turns a flag off."""
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


def range_of(metadata: Mapping[str, Any]) -> Range | None:
    """The numbers that a flag accepts; None for all."""
    bounds = {item.name: metadata[item.name] for item in dataclasses.fields(Range) if item.name in metadata}
    return Range(**bounds) if bounds else None


def converted(value: Any, kind: str) -> Any:
    """A number as Python's own `kind`: files and messages hold the same of 1, 1.0 and numpy's. A path as its text.

    Others as they are.
    """
    if isinstance(value, os.PathLike) and kind == "str":
        return os.fspath(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    if kind == "int" and isinstance(value, numbers.Integral):
        return operator.index(value)  # not by way of a float, which has no more than 53 bits
    number = float(value)
    if kind == "float":
        return number
    return int(number) if kind == "int" and number.is_integer() else value


def refusal(value: Any, kind: str, metadata: Mapping[str, Any], *, may_be_empty: bool) -> tuple[str, str]:
    """Fact and next step about a value; both empty where it is accepted.

    Args:
      value: as `converted` returns it; not None.
      kind: the type of the flag's field, as it is written.
      metadata: of the flag's field.
      may_be_empty: whether a text may be "".
    """
    fact = _type_fact(value, kind)
    for text in value if kind.startswith("tuple") else [value]:
        fact = fact or _text_fact(text, may_be_empty=may_be_empty)
    if fact:
        return fact, ""
    next_step = metadata.get("next_step", "")
    accepted, form, choices = range_of(metadata), metadata.get("form"), metadata.get("choices")
    if choices is not None and value not in choices:
        return f"{value!r} is not {either(choices)}", _meant(value, choices, next_step)
    if accepted is not None and not accepted.accepts(value):
        return accepted.fact(value), next_step
    for text in value if kind.startswith("tuple") else [value]:
        if form is not None and not form.accepts(text):
            return form.fact.format(text), _meant(form.word(text), form.names, form.next_step)
    return "", ""


def _type_fact(value: Any, kind: str) -> str:
    """The fact about a value of another type than its field's; empty for the right one."""
    if kind == "float":
        return "" if isinstance(value, float) else f"{value!r} is not a number"
    if kind == "int":
        return "" if isinstance(value, int) and not isinstance(value, bool) else f"{value!r} is not a whole number"
    if kind == "bool":
        return "" if isinstance(value, bool) else f"{value!r} is not true or false"
    if kind == "str":
        return "" if isinstance(value, str) else f"{value!r} is not a text"
    if kind.startswith("tuple"):
        is_list = isinstance(value, tuple) and all(isinstance(each, str | os.PathLike) for each in value)
        return "" if is_list else f"{value!r} is not a list of texts"
    return ""


def _text_fact(value: Any, *, may_be_empty: bool) -> str:
    """The fact about a text that would fail later, in the first JSON file or the JVM."""
    if not isinstance(value, str):
        return ""
    if not value and not may_be_empty:
        return "its value is empty"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return f"its value is not UTF-8: {os.fsencode(value)!r}; give the path another name"
    return ""


def _meant(value: Any, names: Sequence[Any], next_step: str) -> str:
    """The next step, which begins with the nearest name if one is near."""
    meant = nearest(str(value), [name for name in names if isinstance(name, str)])
    return " ".join(filter(None, [f"Did you mean {meant}?" if meant else "", next_step]))


def either(choices: Sequence[Any]) -> str:
    """`a, b or c`."""
    *most, last = map(str, choices)
    return f"{', '.join(most)} or {last}" if most else last
