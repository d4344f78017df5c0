"""The rows of `infer`'s results, and their text as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tfos_job.layout import printable

DIGITS = 6
"""Of probabilities as text: float32 has seven, and batches of other sizes differ in the last."""


class Row(NamedTuple):
    """The answer about one input.

    Attributes:
      source: path of the file; of a member of an archive, the archive's path followed by the member's.
      offset: byte of the record in that file; None for a picture, and for an error about the whole file.
      label: the name of its class, where it is known.
      label_id: the class id of that, if the model has such a class.
      classes: the names of the most probable classes, the most probable first; empty without an answer.
      class_ids: their ids.
      probabilities: their softmax probabilities.
      doubtful: why the picture may show no character, for a network of glyphs; empty if it seems to show one.
      error: why there is no answer; empty if there is one, or the picture is doubtful.
    """

    source: str
    offset: int | None = None
    label: str | None = None
    label_id: int | None = None
    classes: Sequence[str] = ()
    class_ids: Sequence[int] = ()
    probabilities: Sequence[float] = ()
    doubtful: str = ""
    error: str = ""


COLUMNS = (*Row._fields[:-1], "model_digest", "step", "error")
"""The columns of a result, in order."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Sums over rows.

    Attributes:
      num_errors: inputs that could not be read.
      num_doubtful: pictures that may show no character.
      num_labelled: answers of which the true class is known, and one of the model's.
      num_correct: those of them whose most probable class it is.
    """

    num_rows: int = 0
    num_errors: int = 0
    num_doubtful: int = 0
    num_labelled: int = 0
    num_correct: int = 0

    @staticmethod
    def of(rows: Sequence[Row]) -> Counts:
        judged = [row.class_ids[0] == row.label_id for row in rows if row.class_ids and row.label_id is not None]
        return Counts(
            num_rows=len(rows),
            num_errors=sum(bool(row.error) for row in rows),
            num_doubtful=sum(bool(row.doubtful) for row in rows),
            num_labelled=len(judged),
            num_correct=sum(judged),
        )

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: count + vars(other)[name] for name, count in vars(self).items()})


def values_of(row: Row, model_digest: str, step: int | None) -> dict[str, Any]:
    """The columns of a row; None for what there is not."""
    value = row._asdict() | {"model_digest": model_digest, "step": step}
    value |= {"source": printable(row.source), "doubtful": row.doubtful or None, "error": row.error or None}
    return {name: value[name] for name in COLUMNS}


def to_json_lines(rows: Sequence[Row], model_digest: str, step: int | None) -> bytes:
    """A line for each row."""
    lines = []
    for row in rows:
        rounded = row._replace(probabilities=[round(value, DIGITS) for value in row.probabilities])
        lines.append(json.dumps(values_of(rounded, model_digest, step), ensure_ascii=False) + "\n")
    return "".join(lines).encode("utf-8")
