"""Parts of a page, each with its values as text: pictures, tables, bars. Pure; the templates make them markup."""

from __future__ import annotations

import base64
import functools
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from tfos_job.run import summary
from tfos_job.run.quantities import NOTHING, is_number, number, share


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG with its description: `alt` for readers who cannot see it, `caption` for all.

    Attributes:
      large: it keeps a width at which its text can be read, and is scrolled sideways on a phone.
      folded: all that it shows, in a sentence; the picture opens below it.
    """

    png: bytes
    alt: str
    caption: str = ""
    large: bool = True
    folded: str = ""

    @property
    def base64(self) -> str:
        return base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Share:
    """A share of a number of records, shown as a percentage."""

    value: float
    num_records: int | None = None

    def __str__(self) -> str:
        return share(self.value, self.num_records)


@dataclass(frozen=True, kw_only=True)
class Column:
    """The head of a column, and how its cells are shown."""

    name: str
    is_number: bool
    is_chinese: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below a head. `chinese` are the columns that hold names of classes; `folded` opens below its caption."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    chinese: frozenset[int] = frozenset()
    folded: bool = False

    @property
    def columns(self) -> list[Column]:
        """The columns. One is of numbers if all its values are, except those that are missing."""
        are_numbers = [all(_is_numeric(row[i]) or row[i] is None for row in self.rows) for i in range(len(self.head))]
        return [
            Column(name=name, is_number=are_numbers[i], is_chinese=i in self.chinese)
            for i, name in enumerate(self.head)
        ]

    @property
    def cells(self) -> list[list[str]]:
        """The rows, as text."""
        return [[shown(value) for value in row] for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A share as a bar of its length, with the value in words."""

    name: str
    share: float
    value: str

    @property
    def percent(self) -> str:
        return f"{100 * min(max(self.share, 0.0), 1.0):.1f}"


def shown(value: Any) -> str:
    """A value as people read it."""
    if is_number(value):
        return number(value)
    return NOTHING if value is None or value == "" else str(value)


def clock(text: str) -> str:
    """A report's time to the minute; any other text as it is."""
    return f"{text[:10]} {text[11:16]} UTC" if summary.seconds_of(text) is not None else text or NOTHING


def shares_and_numbers(metrics: Sequence[tuple[str, Any]], num_records: Any) -> list[Any]:
    """Values of an evaluation by name: `top_1` and its like as shares, `ece` too, all others as they are."""
    of = int(num_records) if is_number(num_records) else None
    return [
        Share(float(value), of) if is_number(value) and (name.startswith("top_") or name == "ece") else value
        for name, value in metrics
    ]


@functools.cache
def template(name: str) -> jinja2.Template:
    """A page's template. Templates and style are read as resources, since the package may be a zip."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _resource(name: str) -> str:
    return (importlib.resources.files("tfos_job.reports") / name).read_text("utf-8")


def _is_numeric(value: Any) -> bool:
    return is_number(value) or isinstance(value, Share)
