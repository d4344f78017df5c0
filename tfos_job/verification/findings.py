"""The faults of a dataset, one fact at a time: all are counted, and so many of a kind are kept."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tfos_job.layout import printable

MAX_TOLD = 200
"""Findings of one kind that are kept; of the rest there is a count."""

WARNINGS = ("in_progress", "odd_picture", "repeated_pixels")
"""Kinds that do not make a dataset a bad one."""


@dataclass(frozen=True)
class Finding:
    """One fact.

    Attributes:
      kind: in one word, for programs.
      file: below the dataset's folder, or the name of a source file.
      offset: byte in it, if there is one.
      fact: what is wrong, with what was expected and what was found.
    """

    kind: str
    file: str
    offset: int | None
    fact: str

    def __str__(self) -> str:
        place = self.file if self.offset is None else f"{self.file}, byte {self.offset}"
        return f"{self.kind}: {place}: {self.fact}"


class Findings:
    """Findings in order, no more than `MAX_TOLD` of a kind, and the number of all."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._told: dict[str, list[Finding]] = {}

    def add(self, kind: str, file: str, fact: str, offset: int | None = None, *, count: int = 1) -> None:
        """Adds one that stands for `count`."""
        self._tell([Finding(kind, printable(file), offset, printable(fact))])
        self.counts[kind] += count

    def extend(self, others: Iterable[Findings]) -> None:
        for other in others:
            self._tell(other.told)
            self.counts.update(other.counts)

    def _tell(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            told = self._told.setdefault(finding.kind, [])
            if len(told) < MAX_TOLD:
                told.append(finding)

    @property
    def told(self) -> list[Finding]:
        """By kind, in the order that kinds were met; warnings last."""
        found = itertools.chain.from_iterable(self._told.values())
        return sorted(found, key=lambda finding: finding.kind in WARNINGS)

    @property
    def num_errors(self) -> int:
        return sum(count for kind, count in self.counts.items() if kind not in WARNINGS)

    @property
    def num_warnings(self) -> int:
        return self.counts.total() - self.num_errors

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "num_errors": self.num_errors,
            "num_warnings": self.num_warnings,
            "counts": dict(sorted(self.counts.items())),
            "findings": [dataclasses.asdict(finding) for finding in self.told],
        }
