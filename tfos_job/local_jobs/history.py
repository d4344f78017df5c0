"""`history`: what was promoted, kept out and rolled back, by whom and why. It changes nothing and needs no lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tfos_job.config import HistoryConfig
from tfos_job.layout import RegistryLayout
from tfos_job.run import model_registry
from tfos_job.run.promotion_entry import KEPT, PromotionEntry

_HEAD = ("version", "time (UTC)", "what", "top-1", "step", "model", "by", "reason")
_RIGHT = frozenset({"version", "top-1", "step"})


def read(config: HistoryConfig) -> list[PromotionEntry]:
    """All entries, the oldest first.

    Raises:
      BadDataError: one is damaged.
      MissingInputError: there is no registry.
    """
    return model_registry.history(RegistryLayout(config.registry_dir))


def to_json(entries: Sequence[PromotionEntry]) -> list[dict[str, Any]]:
    """The entries, each with `is_current`."""
    current = _current(entries)
    return [{**msgspec.to_builtins(entry), "is_current": _is(entry, current)} for entry in entries]


def lines(entries: Sequence[PromotionEntry]) -> list[str]:
    """A table; `*` marks the current version, and a candidate that was kept out has no number."""
    current = _current(entries)
    found = [_row(entry, is_current=_is(entry, current)) for entry in entries]
    rows = [_HEAD, *(tuple(map(_harmless, row)) for row in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(
            text.rjust(width) if name in _RIGHT else text.ljust(width)
            for name, text, width in zip(_HEAD, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _current(entries: Sequence[PromotionEntry]) -> int | None:
    return max((entry.version for entry in entries if entry.version is not None), default=None)


def _is(entry: PromotionEntry, current: int | None) -> bool:
    return entry.kind != KEPT and entry.version == current


def _row(entry: PromotionEntry, *, is_current: bool) -> tuple[str, ...]:
    what = entry.kind.replace("_", " ")
    if entry.restores is not None:
        what = f"{what} to {entry.restores}"
    elif entry.forced:
        what = f"{what}, forced"
    top_1 = entry.metrics.get("top_1")
    return (
        "" if entry.version is None else f"{'*' if is_current else ''}{entry.version}",
        entry.time[:19].replace("T", " "),
        what,
        f"{top_1:.4f}" if isinstance(top_1, float) else "",
        str(entry.model.step),
        entry.model.digest[:12],
        f"{entry.who.get('user', '?')}@{entry.who.get('host', '?')}",
        " ".join(entry.reason.split()),
    )


def _harmless(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
