"""The decision whether a candidate may take the place of the current model. Pure; numpy alone.

Both models were asked about the same records. Three tests, of which each may be left out, and all of which must pass:

- the floor: the candidate is right about a share of the records of at least `min_top_1`;
- McNemar's exact test: of the records that one model alone is right about, the current model does not have so many more
  than half that chance makes it in fewer than 5 % of cases. One-sided, since only a worse candidate is kept out;
- the classes: none of at least `min_class_records` records loses more than `max_class_loss` of its accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tfos_job.errors import BadDataError
from tfos_job.run.predictions import Predictions

SIGNIFICANCE = 0.05
"""The probability with which chance alone keeps out a candidate that is as good as the current model, at most."""
_MOST_NAMED = 5  # classes in words
_MOST_LISTED = 100  # in JSON


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a candidate must fulfil.

    Attributes:
      min_top_1: the share of all records that it must be right about; None for any.
      max_class_loss: the share of a class's records by which it may be right less often than the current model; None
        for any.
      min_class_records: classes with fewer records are not looked at.
    """

    min_top_1: float | None = None
    max_class_loss: float | None = None
    min_class_records: int = 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a test: its name, whether the candidate passes, in words, and the numbers as JSON values."""

    test: str
    passed: bool
    words: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Judgement:
    """All findings; `remarks` are what was not tested, in words."""

    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    @property
    def reason(self) -> str:
        """The failed tests in words, or if there is none all of them."""
        failed = [finding.words for finding in self.findings if not finding.passed]
        return "; ".join(failed or [finding.words for finding in self.findings] or self.remarks)

    def to_json(self) -> dict[str, Any]:
        tests = {item.test: {"passed": item.passed, "words": item.words, **item.facts} for item in self.findings}
        return {"passed": self.passed, "tests": tests, "remarks": list(self.remarks)}


def judge(
    candidate: Predictions, current: Predictions | None, rule: Rule, names: Sequence[str], why_alone: str = ""
) -> Judgement:
    """Judges a candidate.

    Args:
      candidate: its predictions for all records.
      current: those of the current model for the same records in the same order; None if there are none.
      rule: what is asked.
      names: of the classes, in the order of their ids.
      why_alone: in words, why `current` is None.

    Raises:
      BadDataError: the two are not about the same records, or about none.
    """
    if not candidate.num_records:
        raise BadDataError("predictions for no record", next_step="Evaluate on a split that has records")
    findings, remarks = [], []
    if rule.min_top_1 is not None:
        findings.append(_floor(candidate, rule.min_top_1))
    if current is None:
        remarks.append(
            f"there is nothing to compare with: {why_alone}" if why_alone else "there is nothing to compare with"
        )
        if rule.min_top_1 is None:
            remarks.append("no accuracy is asked for, so that any network passes")
        return Judgement(tuple(findings), tuple(remarks))
    if not np.array_equal(candidate.labels, current.labels):
        raise BadDataError(
            "the records of the candidate's evaluation do not have the labels of the current model's",
            next_step="Evaluate the candidate again",
        )
    findings.append(_mcnemar(candidate, current))
    if rule.max_class_loss is not None:
        classes = _classes(candidate, current, rule, names)
        findings.append(classes)
        if not classes.facts["num_classes"]:
            remarks.append(f"no class has {rule.min_class_records} records, so that the limit on classes tests nothing")
    return Judgement(tuple(findings), tuple(remarks))


# --- the tests -------------------------------------------------------------------------------------------------------


def _floor(candidate: Predictions, min_top_1: float) -> Finding:
    num_correct, num_records = int(candidate.is_correct.sum()), candidate.num_records
    passed = num_correct >= _exact(min_top_1) * num_records
    relation = "reaches" if passed else "is below"
    words = (
        f"top-1 {num_correct / num_records:.4f} ({num_correct:,} of {num_records:,} records) {relation} {min_top_1:g}"
    )
    facts = {"top_1": num_correct / num_records, "min_top_1": min_top_1, "num_correct": num_correct}
    return Finding(test="floor", passed=passed, words=words, facts=facts | {"num_records": num_records})


def _mcnemar(candidate: Predictions, current: Predictions) -> Finding:
    now, before = candidate.is_correct, current.is_correct
    num_lost, num_won = int((before & ~now).sum()), int((now & ~before).sum())
    p_value = worse_by_chance(num_lost, num_won)
    passed = not p_value < SIGNIFICANCE
    relation = "does not show it to be worse" if passed else "shows it to be worse"
    words = (
        f"of {candidate.num_records:,} records the candidate alone is right about {num_won:,}, the current model alone "
        f"about {num_lost:,}: McNemar's exact test {relation} (p = {p_value:.3g})"
    )
    facts = {"num_won": num_won, "num_lost": num_lost, "p_value": p_value, "significance": SIGNIFICANCE}
    facts |= {"num_records": candidate.num_records, "top_1": float(now.mean()), "current_top_1": float(before.mean())}
    return Finding(test="mcnemar", passed=passed, words=words, facts=facts)


def worse_by_chance(num_lost: int, num_won: int) -> float:
    """The probability that of fair coins as many as these records, or more, fall on "lost".

    P(X ≥ num_lost) of the binomial distribution of num_lost + num_won trials of probability 1/2 (McNemar's exact test,
    one-sided). The relative error is below 1e-8 up to a million records.
    """
    num_all = num_lost + num_won
    if num_lost <= num_won:  # the sum is over most of the distribution; the rest of it is the other tail
        return 1.0 - _upper_tail(num_all, num_won + 1)
    return _upper_tail(num_all, num_lost)


def _upper_tail(num_all: int, first: int) -> float:
    """P(X ≥ first) for first > num_all / 2, where each term is less than the one before."""
    if first > num_all:
        return 0.0
    choices = math.lgamma(num_all + 1) - math.lgamma(first + 1) - math.lgamma(num_all - first + 1)
    first_term = math.exp(choices - num_all * math.log(2.0))
    at = np.arange(first, num_all, dtype=np.float64)
    others = float(np.cumprod((num_all - at) / (at + 1)).sum())
    return first_term * (1.0 + others)


def _classes(candidate: Predictions, current: Predictions, rule: Rule, names: Sequence[str]) -> Finding:
    assert rule.max_class_loss is not None
    num_classes = len(names)
    num_records = np.bincount(candidate.labels, minlength=num_classes)
    now = np.bincount(candidate.labels[candidate.is_correct], minlength=num_classes)
    before = np.bincount(current.labels[current.is_correct], minlength=num_classes)
    looked_at = np.flatnonzero(num_records >= rule.min_class_records)
    limit = _exact(rule.max_class_loss)
    lost = [
        int(one)
        for one in looked_at
        if before[one] > now[one] and int(before[one] - now[one]) > limit * int(num_records[one])
    ]
    lost.sort(key=lambda one: (-(before[one] - now[one]) / num_records[one], one))
    listed = [
        {
            "class_id": one,
            "text": names[one],
            "num_records": int(num_records[one]),
            "num_correct": int(now[one]),
            "current_num_correct": int(before[one]),
        }
        for one in lost[:_MOST_LISTED]
    ]
    facts: dict[str, Any] = {"max_class_loss": rule.max_class_loss, "min_class_records": rule.min_class_records}
    facts |= {"num_classes": len(looked_at), "num_lost": len(lost), "lost": listed}
    return Finding(
        test="classes", passed=not lost, words=_classes_in_words(rule, len(looked_at), lost, listed), facts=facts
    )


def _classes_in_words(rule: Rule, num_looked_at: int, lost: list[int], listed: list[dict[str, Any]]) -> str:
    of_all = f"of {num_looked_at:,} classes with {rule.min_class_records:,} records or more"
    if not lost:
        return f"{of_all} none loses more than {rule.max_class_loss:g} of its accuracy"
    named = [
        f"{one['text']} {one['current_num_correct']:,} → {one['num_correct']:,} of {one['num_records']:,}"
        for one in listed[:_MOST_NAMED]
    ]
    more = f" and {len(lost) - _MOST_NAMED:,} more" if len(lost) > _MOST_NAMED else ""
    verb = "loses" if len(lost) == 1 else "lose"
    return f"{of_all} {len(lost):,} {verb} more than {rule.max_class_loss:g} of the accuracy: {', '.join(named)}{more}"


def _exact(share: float) -> Fraction:
    """The number as it was written: 0.1, and not the nearest binary fraction, which 3 of 30 may exceed."""
    return Fraction(repr(share))
