"""The next action of a submission under a run id: from its record, YARN's list and spark-submit's process. Pure.

The order of a submission makes each moment of a submitter's death one of these states:

1. no record: nothing was started.
2. `submitting` without a process: spark-submit was held at its start, and ended with its submitter.
3. `submitting` with a process: spark-submit may have submitted. On this host its process says whether it still can; on
   another host only time does.
4. `submitted`: the application is known, and YARN or the outcome says how it is.
5. `ended`: the end is known; it may not have been told.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from tfos_job.errors import exit_code_class
from tfos_job.submit.run_record import ENDED, SUBMITTING, Asked, Record

_SIGNALS = (128 + 2, 128 + 15)


class Process(enum.Enum):
    """The process of the recorded spark-submit: it runs here, it has ended, or it cannot be seen from here."""

    ALIVE = "alive"
    GONE = "gone"
    UNSEEN = "unseen"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is seen beside the record.

    Attributes:
      listed: YARN's applications with the record's tag, each with whether it has ended.
      process: of spark-submit. It is looked at before YARN is asked.
      waited_s: seconds since the process was first seen to be as it is.
      submit_s: time limit of spark-submit for its submission.
      in_flight_s: time in which YARN lists what a process that has ended had sent.
    """

    listed: Mapping[str, bool] = field(default_factory=dict)
    process: Process = Process.GONE
    waited_s: float = 0.0
    submit_s: float = 300.0
    in_flight_s: float = 10.0


@dataclass(frozen=True)
class Submit:
    """Submit an attempt with this number."""

    number: int


@dataclass(frozen=True)
class Attach:
    """Follow the application, which goes on."""

    application: str


@dataclass(frozen=True)
class Learn:
    """Record the end of the application: YARN says that it has ended, or does not know it any more."""

    application: str


@dataclass(frozen=True)
class Tell:
    """End as the record says."""


@dataclass(frozen=True)
class Wait:
    """Look again: an application may still appear."""


@dataclass(frozen=True)
class EndProcess:
    """End spark-submit, whose time is over."""


@dataclass(frozen=True)
class Refuse:
    """Other flags than those of the work that goes on or is done."""


Action = Submit | Attach | Learn | Tell | Wait | EndProcess | Refuse


def needs_yarn(record: Record | None) -> bool:
    """Whether the action depends on YARN and on spark-submit's process."""
    if record is None or _was_never_let_go(record):
        return False
    return not (record.state == ENDED and record.exit_code == 0)


def decide(record: Record | None, asked: Asked, seen: Seen) -> Action:
    """The next action. After `Learn`, `Wait` and `EndProcess` one looks and decides again."""
    if record is None:
        return Submit(1)
    if _was_never_let_go(record):
        return Submit(record.number)
    is_same = record.asked == asked
    if record.state == ENDED:
        return _after_the_end(record, seen, is_same=is_same)
    application = record.application or _found(record, seen)
    if application:
        if not seen.listed.get(application, True):
            return Attach(application) if is_same else Refuse()
        if record.application or seen.process is not Process.ALIVE:
            return Learn(application)
        # It may be of a late spark-submit, and this one's may come.
        return Wait() if seen.waited_s < seen.submit_s else EndProcess()
    if seen.process is Process.ALIVE:
        if not is_same:
            return Refuse()
        return Wait() if seen.waited_s < seen.submit_s else EndProcess()
    limit_s = seen.in_flight_s if seen.process is Process.GONE else seen.submit_s
    return Wait() if seen.waited_s < limit_s else Submit(record.number + 1)


def _after_the_end(record: Record, seen: Seen, *, is_same: bool) -> Action:
    if record.exit_code == 0:
        return Tell() if is_same else Refuse()
    if late := next(iter(_at_work(record, seen)), ""):  # of a spark-submit on another host that took very long
        return Attach(late) if is_same else Refuse()
    is_news = is_same and not record.told
    return Tell() if is_news and not helps_to_retry(record.exit_code or 0) else Submit(record.number + 1)


def helps_to_retry(exit_code: int) -> bool:
    """Whether the same submission can end otherwise; also where somebody has stopped the one before."""
    return exit_code in _SIGNALS or exit_code_class(exit_code).retryable


def _was_never_let_go(record: Record) -> bool:
    return record.state == SUBMITTING and record.spark_submit is None


def _found(record: Record, seen: Seen) -> str:
    """The application of this attempt by its tag: the first that is at work, else the last that was; or empty."""
    newest = max([_order(each["application"]) for each in record.earlier], default=[])
    ended = [each for each in _in_order(record, seen) if seen.listed[each] and _order(each) > newest]
    return next(iter([*_at_work(record, seen), *reversed(ended)]), "")


def _at_work(record: Record, seen: Seen) -> list[str]:
    return [each for each in _in_order(record, seen) if not seen.listed[each]]


def _in_order(record: Record, seen: Seen) -> list[str]:
    """The listed applications that are no earlier attempt's, in the order of their submission."""
    known = {each["application"] for each in record.earlier}
    return sorted(set(seen.listed) - known, key=_order)


def _order(application: str) -> list[int]:
    """Time of the ResourceManager's start, and number of the application: a later one has more."""
    return [int(number) for number in application.split("_")[1:]]
