"""Parts of a run's page, each with its values as text: pictures, tables, bars. Pure; the template makes them markup."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG with its description: `alt` for readers who cannot see it, `caption` for all."""

    png: bytes
    alt: str
    caption: str = ""
    large: bool = True

    @property
    def base64(self) -> str:
        return base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Column:
    """The head of a column, and how its cells are shown."""

    name: str
    is_number: bool
    is_chinese: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below a head. `chinese` are the columns that hold names of classes."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    chinese: frozenset[int] = frozenset()

    @property
    def columns(self) -> list[Column]:
        """The columns. One is of numbers if all its values are, except those that are missing."""
        are_numbers = [all(is_number(row[i]) or row[i] is None for row in self.rows) for i in range(len(self.head))]
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


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, float):
        small = value != 0 and abs(value) < 1e-3
        return f"{value:.3g}" if small else f"{value:,.4f}" if abs(value) < 100 else f"{value:,.1f}"
    if is_number(value):
        return f"{value:,}"
    return "–" if value is None else str(value)


def seconds(value: float) -> str:
    return f"{value * 1000:,.1f} ms" if value < 1 else f"{value:,.1f} s"
