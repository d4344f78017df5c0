"""What a network made of each record of a split, and what follows from it. Numpy alone; 16 bytes a record.

Records are numbered in the order of the shards. Where two are equal in what they are sorted by, the first one comes
first, so that the same counts always give the same lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NUM_BINS = 15


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """Of N records, in order.

    Attributes:
      labels: true class ids, int32 [N].
      guesses: the most probable class ids, int32 [N].
      probabilities: of the guesses, float32 [N].
      losses: nats, float32 [N].
      shard_sizes: records of each shard.
    """

    labels: np.ndarray
    guesses: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray
    shard_sizes: tuple[int, ...]

    @staticmethod
    def joined(shards: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> Guesses:
        """From the four arrays of each shard."""
        columns = [np.concatenate(column) for column in zip(*shards, strict=True)] if shards else [np.empty(0)] * 4
        types = (np.int32, np.int32, np.float32, np.float32)
        labels, guesses, probabilities, losses = (c.astype(t) for c, t in zip(columns, types, strict=True))
        return Guesses(
            labels=labels,
            guesses=guesses,
            probabilities=probabilities,
            losses=losses,
            shard_sizes=tuple(len(shard[0]) for shard in shards),
        )

    @property
    def num_records(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> np.ndarray:
        """Bool [N]."""
        return self.labels == self.guesses

    def place(self, record: int) -> tuple[int, int]:
        """Shard number of a record, and its position within the shard."""
        ends = np.cumsum(self.shard_sizes)
        shard = int(np.searchsorted(ends, record, side="right"))
        return shard, int(record - (ends[shard] - self.shard_sizes[shard]))

    def label_probability(self, record: int) -> float:
        """Of the true class: what the loss is the logarithm of."""
        return float(np.exp(-np.float64(self.losses[record])))


class Confusion(NamedTuple):
    """`num_records` of class `label` were taken for `guess`; `rate` is their share of the class."""

    label: int
    guess: int
    num_records: int
    rate: float


def confusions(guesses: Guesses) -> list[Confusion]:
    """All pairs that occur, the most frequent first, of equal ones that with the higher rate."""
    wrong = np.flatnonzero(~guesses.right)
    pairs, counts = np.unique(np.stack([guesses.labels[wrong], guesses.guesses[wrong]], 1), axis=0, return_counts=True)
    num_records = np.bincount(guesses.labels)
    found = [
        Confusion(int(label), int(guess), int(count), float(count / num_records[label]))
        for (label, guess), count in zip(pairs, counts, strict=True)
    ]
    return sorted(found, key=lambda pair: (-pair.num_records, -pair.rate, pair.label, pair.guess))


@dataclass(frozen=True, kw_only=True)
class PerClass:
    """int64 [C] each. `wrong_guesses` is the most frequent one, -1 where there is none."""

    num_records: np.ndarray
    num_correct: np.ndarray
    wrong_guesses: np.ndarray


def per_class(guesses: Guesses, pairs: Sequence[Confusion], num_classes: int) -> PerClass:
    """Args:
    guesses: of all records.
    pairs: `confusions` of the same.
    num_classes: C.
    """
    wrong = np.full(num_classes, -1, np.int64)
    for pair in reversed(pairs):  # the most frequent one is written last
        wrong[pair.label] = pair.guess
    return PerClass(
        num_records=np.bincount(guesses.labels, minlength=num_classes),
        num_correct=np.bincount(guesses.labels[guesses.right], minlength=num_classes),
        wrong_guesses=wrong,
    )


class Bin(NamedTuple):
    """Records whose guess has a probability in (`low`, `high`]: how many, the share that is right, their mean one."""

    low: float
    high: float
    num_examples: int
    accuracy: float | None
    confidence: float | None


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be taken at their word: the expected calibration error, and the bins behind it."""

    ece: float
    bins: tuple[Bin, ...]


def calibration(guesses: Guesses) -> Calibration:
    """By 15 bins of equal width: the mean of |accuracy − confidence|, weighted by records (Guo et al., 2017)."""
    probabilities = guesses.probabilities.astype(np.float64)
    number = np.clip(np.ceil(probabilities * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    sizes = np.bincount(number, minlength=NUM_BINS)
    right = np.bincount(number, weights=guesses.right, minlength=NUM_BINS)
    sums = np.bincount(number, weights=probabilities, minlength=NUM_BINS)
    bins = tuple(
        Bin(i / NUM_BINS, (i + 1) / NUM_BINS, int(n), float(r / n) if n else None, float(s / n) if n else None)
        for i, (n, r, s) in enumerate(zip(sizes, right, sums, strict=True))
    )
    return Calibration(float(np.abs(right - sums).sum() / max(guesses.num_records, 1)), bins)


def hardest(guesses: Guesses, count: int) -> list[int]:
    """The records with the highest loss, the highest first."""
    return np.argsort(-guesses.losses, kind="stable")[:count].tolist()


def surest(guesses: Guesses, label: int, guess: int, count: int) -> list[int]:
    """Records of class `label` taken for `guess` (for the same: rightly recognised), the most probable first."""
    found = np.flatnonzero((guesses.labels == label) & (guesses.guesses == guess))
    return found[np.argsort(-guesses.probabilities[found], kind="stable")][:count].tolist()
