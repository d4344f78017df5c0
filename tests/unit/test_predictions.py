from __future__ import annotations

import numpy as np
import pytest

from tfos_job.run import predictions
from tfos_job.run.predictions import Confusion, Predictions


def judged(*records: tuple[int, int, float, float], shard_sizes: tuple[int, ...] = ()) -> Predictions:
    """Each record as label, predicted class, its probability, loss."""
    columns = [np.array(column) for column in zip(*records, strict=True)]
    sizes = shard_sizes or (len(records),)
    ends = np.cumsum(sizes)
    return Predictions.joined([tuple(c[end - n : end] for c in columns) for n, end in zip(sizes, ends, strict=True)])


TEN = judged(
    (0, 0, 0.9, 0.1),
    (0, 1, 0.8, 3.0),
    (0, 1, 0.95, 2.0),
    (0, 2, 0.6, 2.5),
    (1, 1, 0.7, 0.4),
    (1, 0, 0.7, 3.0),
    (1, 0, 0.5, 0.9),
    (1, 0, 0.7, 1.0),
    (3, 2, 0.4, 1.5),
    (3, 3, 0.99, 0.01),
    shard_sizes=(4, 0, 6),
)


def test_confusions_counted_by_hand() -> None:
    assert predictions.confusions(TEN) == [
        Confusion(1, 0, 3, 0.75),
        Confusion(0, 1, 2, 0.5),
        Confusion(3, 2, 1, 0.5),  # one of two is more than one of four
        Confusion(0, 2, 1, 0.25),
    ]


def test_classes_counted_by_hand() -> None:
    found = predictions.per_class(TEN, predictions.confusions(TEN), num_classes=5)
    assert found.num_records.tolist() == [4, 4, 0, 2, 0]
    assert found.num_correct.tolist() == [1, 1, 0, 1, 0]
    assert found.most_frequent_wrong.tolist() == [1, 0, -1, 2, -1]


def test_nothing_confused() -> None:
    right = judged((2, 2, 1.0, 0.0))
    assert predictions.confusions(right) == []
    assert predictions.per_class(right, [], 3).most_frequent_wrong.tolist() == [-1, -1, -1]


def test_calibration_computed_by_hand() -> None:
    found = predictions.calibration(
        judged((0, 0, 0.95, 0.0), (0, 1, 0.97, 0.0), (0, 0, 0.5, 0.0), (0, 0, 1.0, 0.0), (0, 1, 0.06, 0.0))
    )
    # (14/15, 1] holds three, two of them right; (7/15, 8/15] one, which is right; (0, 1/15] one, which is wrong.
    errors = [3 * abs(2 / 3 - (0.95 + 0.97 + 1.0) / 3), 1 * abs(1 - 0.5), 1 * abs(0 - 0.06)]
    assert found.ece == pytest.approx(sum(errors) / 5, rel=1e-6)
    assert [b.num_examples for b in found.bins] == [1, *[0] * 6, 1, *[0] * 6, 3]
    assert found.bins[-1].accuracy == pytest.approx(2 / 3)
    assert found.bins[-1].confidence == pytest.approx(2.92 / 3)
    assert found.bins[3][2:] == (0, None, None)


def test_a_network_that_knows_what_it_knows_has_no_calibration_error() -> None:
    assert predictions.calibration(judged((0, 0, 0.75, 0), (0, 0, 0.75, 0), (0, 0, 0.75, 0), (0, 1, 0.75, 0))).ece == 0


def test_the_hardest_are_the_true_maxima_and_equal_ones_keep_their_order() -> None:
    assert predictions.hardest(TEN, 4) == [1, 5, 3, 2]
    losses = np.random.default_rng(0).permutation(1000)
    many = judged(*((0, 0, 1.0, float(loss)) for loss in losses))
    assert [losses[i] for i in predictions.hardest(many, 10)] == list(range(999, 989, -1))
    assert len(predictions.hardest(TEN, 100)) == 10


def test_the_surest_of_a_pair() -> None:
    assert predictions.surest(TEN, 1, 0, 2) == [5, 7]
    assert predictions.surest(TEN, 3, 3, 5) == [9]
    assert predictions.surest(TEN, 2, 2, 5) == []


def test_a_record_is_found_again_by_shard_and_position() -> None:
    assert [TEN.place(record) for record in range(10)] == [*((0, i) for i in range(4)), *((2, i) for i in range(6))]


def test_the_probability_of_the_true_class_comes_from_the_loss() -> None:
    assert TEN.label_probability(1) == pytest.approx(np.exp(-3.0))


def test_a_record_takes_sixteen_bytes() -> None:
    arrays = (TEN.labels, TEN.predicted, TEN.probabilities, TEN.losses)
    assert sum(array.nbytes for array in arrays) == 16 * TEN.num_records
