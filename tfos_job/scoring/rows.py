"""The rows of `infer`'s results, and their text as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from tfos_job.layout import printable

DIGITS = 6
"""Of probabilities as text: float32 has seven, and batches of other sizes differ in the last."""
BLOCK_VALUES = 1 << 17
"""Of rows that are in memory together; a class of a row is one, at about 200 bytes with all that is made of it."""


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


def blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in order, some thousands at a time, or fewer where each has many classes: so many fit any memory."""
    block: list[Row] = []
    num_values = 0
    for row in rows:
        block.append(row)
        num_values += len(COLUMNS) + len(row.classes)
        if num_values >= BLOCK_VALUES:
            yield block
            block, num_values = [], 0
    if block:
        yield block


def write_json_lines(blocks: Iterable[Sequence[Row]], stream: BinaryIO, model_digest: str, step: int | None) -> None:
    """Writes a line for each row."""
    for block in blocks:
        for row in block:
            rounded = row._replace(probabilities=[round(value, DIGITS) for value in row.probabilities])
            line = json.dumps(values_of(rounded, model_digest, step), ensure_ascii=False) + "\n"
            stream.write(line.encode("utf-8"))
