"""The gate: what is promoted, what is kept, and by what evidence."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from tfos_job.errors import BadDataError
from tfos_job.run.gate import SIGNIFICANCE, Judgement, Rule, judge, worse_by_chance
from tfos_job.run.predictions import Predictions


def predictions(labels: list[int] | np.ndarray, is_correct: list[bool] | np.ndarray) -> Predictions:
    """Of a network that takes each class for the next one where it is wrong."""
    labels = np.asarray(labels, np.int32)
    predicted = np.where(is_correct, labels, labels + 1).astype(np.int32)
    numbers = np.full(len(labels), 0.5, np.float32)
    return Predictions(
        labels=labels, predicted=predicted, probabilities=numbers, losses=numbers, shard_sizes=(len(labels),)
    )


def pair(both: int, lost: int, won: int, neither: int = 0) -> tuple[Predictions, Predictions]:
    """The candidate's and the current model's, by how many records both, one and none of them are right about."""
    labels = np.zeros(both + lost + won + neither, np.int32)
    candidate = np.repeat([True, False, True, False], [both, lost, won, neither])
    current = np.repeat([True, True, False, False], [both, lost, won, neither])
    return predictions(labels, candidate), predictions(labels, current)


def passed(judgement: Judgement) -> dict[str, bool]:
    return {finding.test: finding.passed for finding in judgement.findings}


def exactly(num_lost: int, num_won: int) -> Fraction:
    """P(X ≥ num_lost) by Pascal's triangle, which has nothing in common with the gate's way."""
    row = [Fraction(1)]
    for _ in range(num_lost + num_won):
        row = [(left + right) / 2 for left, right in zip([Fraction(0), *row], [*row, Fraction(0)], strict=True)]
    return sum(row[num_lost:], Fraction(0))


def test_the_probability_is_the_exact_one_for_all_small_numbers() -> None:
    for num_all in range(41):
        for num_lost in range(num_all + 1):
            expected = float(exactly(num_lost, num_all - num_lost))
            assert math.isclose(worse_by_chance(num_lost, num_all - num_lost), expected, rel_tol=1e-12), (
                num_lost,
                num_all,
            )


@pytest.mark.parametrize(
    ("num_lost", "num_won"), [(530, 470), (1040, 960), (5_100, 4_900), (2_000, 0), (0, 2_000), (7_000, 7_000)]
)
def test_the_probability_is_the_exact_one_for_large_numbers(num_lost: int, num_won: int) -> None:
    num_all = num_lost + num_won
    choices = math.comb(num_all, num_lost)
    total = choices
    for taken in range(num_lost, num_all):
        choices = choices * (num_all - taken) // (taken + 1)
        total += choices
    expected = float(Fraction(total, 2**num_all))
    assert math.isclose(worse_by_chance(num_lost, num_won), expected, rel_tol=1e-8, abs_tol=1e-300)


def test_two_hundred_thousand_records_that_all_differ() -> None:
    """The normal distribution is near there: 1.645 standard deviations are 5 %."""
    num_all = 200_000
    for deviations, expected in ((0.0, 0.5), (1.6449, 0.05), (3.0, 0.00135)):
        num_lost = round(num_all / 2 + deviations * math.sqrt(num_all) / 2)
        assert worse_by_chance(num_lost, num_all - num_lost) == pytest.approx(expected, rel=0.02)
    assert worse_by_chance(num_all, 0) == 0.0
    assert worse_by_chance(0, num_all) == 1.0
    candidate, current = pair(0, 100_000, 100_000)
    assert judge(candidate, current, Rule(), ["a"]).passed


def test_five_losses_without_a_win_are_the_fewest_that_show_a_worse_candidate() -> None:
    assert worse_by_chance(4, 0) == 1 / 16
    assert worse_by_chance(5, 0) == 1 / 32
    assert worse_by_chance(4, 0) > SIGNIFICANCE > worse_by_chance(5, 0)
    assert judge(*pair(95, 4, 0), Rule(), ["a"]).passed
    judgement = judge(*pair(95, 5, 0), Rule(), ["a"])
    assert not judgement.passed
    assert judgement.reason == (
        "of 100 records the candidate alone is right about 0, the current model alone about 5: McNemar's exact test "
        "shows it to be worse (p = 0.0312)"
    )


def test_only_a_worse_candidate_is_kept_out() -> None:
    assert judge(*pair(50, 0, 50), Rule(), ["a"]).passed
    assert not judge(*pair(50, 50, 0), Rule(), ["a"]).passed


def test_records_that_both_or_none_is_right_about_change_nothing() -> None:
    values = {
        judge(*pair(both, 30, 20, neither), Rule(), ["a"]).findings[0].facts["p_value"]
        for both, neither in ((0, 0), (1_000, 0), (0, 1_000))
    }
    assert values == {worse_by_chance(30, 20)}


def test_the_same_answers_pass() -> None:
    judgement = judge(*pair(60, 0, 0, 40), Rule(), ["a"])
    assert passed(judgement) == {"mcnemar": True}
    assert judgement.findings[0].facts["p_value"] == 1.0


@pytest.mark.parametrize(("num_correct", "is_enough"), [(29, False), (30, True), (31, True)])
def test_the_floor_is_met_by_the_very_number(num_correct: int, is_enough: bool) -> None:
    """0.3 of 100: the float 0.3 is a little less, and 0.3 * 100 none of both."""
    labels = np.zeros(100, np.int32)
    judgement = judge(predictions(labels, np.arange(100) < num_correct), None, Rule(min_top_1=0.3), ["a"])
    assert passed(judgement) == {"floor": is_enough}
    assert judgement.passed is is_enough
    assert ("reaches 0.3" if is_enough else "is below 0.3") in judgement.reason


def test_a_better_candidate_below_the_floor_fails() -> None:
    judgement = judge(*pair(50, 0, 20, 30), Rule(min_top_1=0.9), ["a"])
    assert passed(judgement) == {"floor": False, "mcnemar": True}
    assert judgement.reason == "top-1 0.7000 (70 of 100 records) is below 0.9"


def test_the_first_night_has_the_floor_alone() -> None:
    candidate, _ = pair(95, 5, 0)
    judgement = judge(candidate, None, Rule(min_top_1=0.9, max_class_loss=0.0), ["a"], "no model was promoted yet")
    assert passed(judgement) == {"floor": True}
    assert judgement.remarks == ("there is nothing to compare with: no model was promoted yet",)


def test_without_any_threshold_the_first_passes_with_a_remark_and_the_next_is_compared() -> None:
    candidate, current = pair(0, 50, 0, 50)
    judgement = judge(candidate, None, Rule(), ["a"])
    assert judgement.passed
    assert judgement.remarks[-1] == "no accuracy is asked for, so that any network passes"
    assert judgement.reason == judgement.remarks[0] + "; " + judgement.remarks[1]
    assert not judge(candidate, current, Rule(), ["a"]).passed


def classes(num_records: int, before: int, now: int, rule: Rule) -> Judgement:
    """Class 0 has 1,000 records that both are right about, class 1 `num_records`, of which they know so many."""
    labels = np.repeat([0, 1], [1_000, num_records])
    ranks = np.concatenate([np.full(1_000, -1), np.arange(num_records)])
    return judge(predictions(labels, ranks < now), predictions(labels, ranks < before), rule, ["一", "丁", "七"])


@pytest.mark.parametrize(("now", "is_kept"), [(27, False), (26, True)])
def test_a_class_may_lose_the_very_limit(now: int, is_kept: bool) -> None:
    """3 of 30 are 0.1, which no float is."""
    judgement = classes(30, 30, now, Rule(max_class_loss=0.1, min_class_records=30))
    assert passed(judgement) == {"mcnemar": True, "classes": not is_kept}
    if is_kept:
        assert judgement.reason == (
            "of 2 classes with 30 records or more 1 loses more than 0.1 of the accuracy: 丁 30 → 26 of 30"
        )
        lost = {"class_id": 1, "text": "丁", "num_records": 30, "num_correct": 26, "current_num_correct": 30}
        assert judgement.to_json()["tests"]["classes"]["lost"] == [lost]


def test_a_small_class_is_not_looked_at() -> None:
    assert classes(29, 29, 25, Rule(max_class_loss=0.1, min_class_records=30)).passed
    judgement = classes(29, 29, 25, Rule(max_class_loss=0.1, min_class_records=2_000))
    assert judgement.passed
    assert judgement.remarks == ("no class has 2000 records, so that the limit on classes tests nothing",)


def test_a_class_without_a_record_loses_nothing() -> None:
    judgement = classes(0, 0, 0, Rule(max_class_loss=0.0, min_class_records=1))
    assert judgement.findings[1].facts["num_classes"] == 1
    assert judgement.passed


def test_the_worst_classes_are_named_first_and_not_all() -> None:
    num_classes = 20
    labels = np.repeat(np.arange(num_classes), 10)
    right = np.tile(np.arange(10), num_classes) >= np.repeat(np.arange(num_classes) // 2, 10)
    judgement = judge(
        predictions(labels, right),
        predictions(labels, np.full(200, True)),
        Rule(max_class_loss=0.1),
        list("abcdefghijklmnopqrst"),
    )
    (_, found) = judgement.findings
    assert found.facts["num_lost"] == 16
    assert [one["class_id"] for one in found.facts["lost"]][:4] == [18, 19, 16, 17]
    assert "s 10 → 1 of 10, t 10 → 1 of 10" in found.words
    assert found.words.endswith(" and 11 more")


def test_other_records_are_refused() -> None:
    candidate, _ = pair(10, 0, 0)
    other = predictions(np.ones(10, np.int32), np.full(10, True))
    with pytest.raises(BadDataError, match="do not have the labels"):
        judge(candidate, other, Rule(), ["a", "b"])
    with pytest.raises(BadDataError, match="do not have the labels"):
        judge(candidate, pair(9, 0, 0)[1], Rule(), ["a"])
    with pytest.raises(BadDataError, match="no record"):
        judge(pair(0, 0, 0)[0], None, Rule(), ["a"])


def test_the_decision_in_json() -> None:
    found = judge(*pair(95, 5, 0), Rule(min_top_1=0.5), ["a"]).to_json()
    assert found["passed"] is False
    assert found["tests"]["floor"]["num_correct"] == 95
    assert found["tests"]["mcnemar"]["num_lost"] == 5
    assert found["tests"]["mcnemar"]["current_top_1"] == 1.0
