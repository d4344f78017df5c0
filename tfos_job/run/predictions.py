"""A network's prediction for each record of a split, and summaries of them. numpy alone; 16 bytes a record.

Records are numbered in the order of the shards. Sorting is stable, so that equal values keep this order and the same
predictions always give the same lists.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NUM_BINS = 15


class JudgedShard(NamedTuple):
    """What a network made of a shard of n records.

    Attributes:
      counts: sums over them, as in `inference/evaluation.py`: float64 [2 + number of k].
      columns: labels int32 [n], predicted classes int32 [n], their probabilities float32 [n], losses float32 [n].
    """

    counts: np.ndarray
    columns: tuple[np.ndarray, ...]

    @property
    def num_records(self) -> int:
        return len(self.columns[0])

    def to_json(self) -> list[str]:
        """JSON values of which `from_json` makes the same, bit for bit."""
        return [_to_text(array) for array in (self.counts, *self.columns)]

    @staticmethod
    def from_json(value: Sequence[str]) -> JudgedShard:
        counts, *columns = map(_from_text, value)
        return JudgedShard(counts, tuple(columns))


def _to_text(array: np.ndarray) -> str:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _from_text(text: str) -> np.ndarray:
    found: np.ndarray = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    return found


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The predictions for N records, in order.

    Attributes:
      labels: true class ids, int32 [N].
      predicted: most probable class ids, int32 [N].
      probabilities: of the predicted classes, float32 [N].
      losses: nats, float32 [N].
      shard_sizes: number of records of each shard.
    """

    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray
    shard_sizes: tuple[int, ...]

    @staticmethod
    def joined(shards: Sequence[tuple[np.ndarray, ...]]) -> Predictions:
        """Joins the four arrays of each shard."""
        columns = [np.concatenate(column) for column in zip(*shards, strict=True)] if shards else [np.empty(0)] * 4
        types = (np.int32, np.int32, np.float32, np.float32)
        labels, predicted, probabilities, losses = (c.astype(t) for c, t in zip(columns, types, strict=True))
        return Predictions(
            labels=labels,
            predicted=predicted,
            probabilities=probabilities,
            losses=losses,
            shard_sizes=tuple(len(shard[0]) for shard in shards),
        )

    @property
    def num_records(self) -> int:
        return len(self.labels)

    @property
    def is_correct(self) -> np.ndarray:
        """Bool [N]."""
        return self.labels == self.predicted

    def place(self, record: int) -> tuple[int, int]:
        """Returns the shard number of a record, and its position within the shard."""
        ends = np.cumsum(self.shard_sizes)
        shard = int(np.searchsorted(ends, record, side="right"))
        return shard, int(record - (ends[shard] - self.shard_sizes[shard]))

    def label_probability(self, record: int) -> float:
        """Returns the probability of the true class: the loss is its negative logarithm."""
        return float(np.exp(-np.float64(self.losses[record])))


class Confusion(NamedTuple):
    """A pair of classes: `num_records` of class `label` were predicted as `predicted`; `rate` is their share of it."""

    label: int
    predicted: int
    num_records: int
    rate: float


def confusions(predictions: Predictions) -> list[Confusion]:
    """Returns all pairs that occur, the most frequent first, then by rate."""
    wrong = np.flatnonzero(~predictions.is_correct)
    of_both = np.stack([predictions.labels[wrong], predictions.predicted[wrong]], 1)
    pairs, counts = np.unique(of_both, axis=0, return_counts=True)
    num_records = np.bincount(predictions.labels)
    found = [
        Confusion(int(label), int(predicted), int(count), float(count / num_records[label]))
        for (label, predicted), count in zip(pairs, counts, strict=True)
    ]
    return sorted(found, key=lambda pair: (-pair.num_records, -pair.rate, pair.label, pair.predicted))


@dataclass(frozen=True, kw_only=True)
class PerClass:
    """Counts of each class, int64 [C]. `most_frequent_wrong` is a class id, -1 if no prediction was wrong."""

    num_records: np.ndarray
    num_correct: np.ndarray
    most_frequent_wrong: np.ndarray


def per_class(predictions: Predictions, pairs: Sequence[Confusion], num_classes: int) -> PerClass:
    """Counts records and correct predictions of each class.

    Args:
      predictions: for all records.
      pairs: `confusions` of these predictions.
      num_classes: C.
    """
    wrong = np.full(num_classes, -1, np.int64)
    for pair in reversed(pairs):  # the most frequent pair is written last
        wrong[pair.label] = pair.predicted
    correct = predictions.labels[predictions.is_correct]
    return PerClass(
        num_records=np.bincount(predictions.labels, minlength=num_classes),
        num_correct=np.bincount(correct, minlength=num_classes),
        most_frequent_wrong=wrong,
    )


class Bin(NamedTuple):
    """Records predicted with a probability in (`low`, `high`]; `confidence` is the mean of these probabilities."""

    low: float
    high: float
    num_examples: int
    accuracy: float | None
    confidence: float | None


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error of the predicted probabilities, and its bins."""

    ece: float
    bins: tuple[Bin, ...]


def calibration(predictions: Predictions) -> Calibration:
    """Computes the mean of |accuracy − confidence| over 15 equal bins, weighted by records (Guo et al., 2017)."""
    probabilities = predictions.probabilities.astype(np.float64)
    number = np.clip(np.ceil(probabilities * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    sizes = np.bincount(number, minlength=NUM_BINS)
    correct = np.bincount(number, weights=predictions.is_correct, minlength=NUM_BINS)
    sums = np.bincount(number, weights=probabilities, minlength=NUM_BINS)
    bins = tuple(
        Bin(i / NUM_BINS, (i + 1) / NUM_BINS, int(n), float(c / n) if n else None, float(s / n) if n else None)
        for i, (n, c, s) in enumerate(zip(sizes, correct, sums, strict=True))
    )
    return Calibration(float(np.abs(correct - sums).sum() / max(predictions.num_records, 1)), bins)


def hardest(predictions: Predictions, count: int) -> list[int]:
    """Returns the records with the highest losses, the highest first."""
    return np.argsort(-predictions.losses, kind="stable")[:count].tolist()


def surest(predictions: Predictions, label: int, predicted: int, count: int) -> list[int]:
    """Returns records of class `label` that were predicted as `predicted`, the most probable first."""
    found = np.flatnonzero((predictions.labels == label) & (predictions.predicted == predicted))
    return found[np.argsort(-predictions.probabilities[found], kind="stable")][:count].tolist()
