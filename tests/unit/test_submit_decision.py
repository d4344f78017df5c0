"""A submission under a run id: names, its record, and what is done next for whatever an earlier one has left."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tfos_job.errors import BadDataError, FlagError
from tfos_job.submit import run_record
from tfos_job.submit.application_state import listed
from tfos_job.submit.decision import (
    Action,
    Attach,
    EndProcess,
    Learn,
    Process,
    Refuse,
    Seen,
    Submit,
    Tell,
    Wait,
    decide,
    needs_yarn,
)
from tfos_job.submit.run_record import ENDED, SUBMITTED, SUBMITTING, Asked, Record

ASKED = Asked.of("train", {"train_dir": "hdfs://nn/run", "epoch": 5}, [])
OTHER = Asked.of("train", {"train_dir": "hdfs://nn/run", "epoch": 6}, [])
FIRST, SECOND, THIRD = (f"application_1795610618978_{number}" for number in ("9999", "10000", "10001"))
SPARK_SUBMIT = {"host": "gateway", "pid": 7, "pid_namespace": "pid:[1]", "process_started": "boot:1"}


def record(state: str, **fields: Any) -> Record:
    made = Record(run_id="night", stage="train", asked=ASKED, tag="tfos_job-run-1", number=3, state=state)
    return dataclasses.replace(made, **fields)


HELD = record(SUBMITTING)
LET_GO = record(SUBMITTING, spark_submit=SPARK_SUBMIT)
KNOWN = record(SUBMITTED, spark_submit=SPARK_SUBMIT, application=SECOND)
AGAIN = record(SUBMITTING, spark_submit=SPARK_SUBMIT, earlier=({"number": 2, "application": FIRST, "exit_code": 71},))
LATER = record(SUBMITTING, spark_submit=SPARK_SUBMIT, earlier=({"number": 2, "application": SECOND, "exit_code": 71},))
ALIVE, GONE, UNSEEN = Process.ALIVE, Process.GONE, Process.UNSEEN


def ended(exit_code: int, *, told: bool = True) -> Record:
    return dataclasses.replace(KNOWN, state=ENDED, exit_code=exit_code, told=told)


def seen(process: Process = GONE, waited_s: float = 0.0, **applications: bool) -> Seen:
    """Args: `first=False` lists FIRST as one that goes on."""
    names = {"first": FIRST, "second": SECOND, "third": THIRD}
    found = {names[name]: has_ended for name, has_ended in applications.items()}
    return Seen(listed=found, process=process, waited_s=waited_s, submit_s=300, in_flight_s=10)


@pytest.mark.parametrize(
    ("before", "found", "same", "other"),
    [
        # Nothing was started: no record, or a spark-submit that was held and ended with its submitter.
        (None, seen(), Submit(1), Submit(1)),
        (HELD, seen(), Submit(3), Submit(3)),
        # spark-submit works here, without an application and with one.
        (LET_GO, seen(ALIVE), Wait(), Refuse()),
        (LET_GO, seen(ALIVE, 300), EndProcess(), Refuse()),
        (LET_GO, seen(ALIVE, second=False), Attach(SECOND), Refuse()),
        # It has ended here: what it had sent is listed within seconds, or never.
        (LET_GO, seen(GONE), Wait(), Wait()),
        (LET_GO, seen(GONE, 10), Submit(4), Submit(4)),
        (LET_GO, seen(GONE, second=False), Attach(SECOND), Refuse()),
        (LET_GO, seen(GONE, second=True), Learn(SECOND), Learn(SECOND)),
        # It is another host's: an application may appear for as long as a submission may take.
        (LET_GO, seen(UNSEEN, 10), Wait(), Wait()),
        (LET_GO, seen(UNSEEN, 300), Submit(4), Submit(4)),
        (LET_GO, seen(UNSEEN, second=False), Attach(SECOND), Refuse()),
        # An earlier attempt's application is not this one's. The first at work is; ids are numbers, not words.
        (AGAIN, seen(GONE, first=True), Wait(), Wait()),
        (AGAIN, seen(GONE, 10, first=True), Submit(4), Submit(4)),
        (AGAIN, seen(GONE, first=True, second=False), Attach(SECOND), Refuse()),
        (LET_GO, seen(GONE, second=False, first=False), Attach(FIRST), Refuse()),
        (LET_GO, seen(GONE, first=True, third=False), Attach(THIRD), Refuse()),
        (LET_GO, seen(GONE, second=True, first=True), Learn(SECOND), Learn(SECOND)),
        # One that ended before the last attempt's is not this one's; one that ended since may be a late one's.
        (LATER, seen(GONE, 10, first=True, second=True), Submit(4), Submit(4)),
        (LATER, seen(ALIVE, third=True), Wait(), Wait()),
        (LATER, seen(ALIVE, 300, third=True), EndProcess(), EndProcess()),
        (LATER, seen(GONE, third=True), Learn(THIRD), Learn(THIRD)),
        # The application is known: it goes on, has ended, or YARN has forgotten it.
        (KNOWN, seen(ALIVE, second=False), Attach(SECOND), Refuse()),
        (KNOWN, seen(GONE, second=False), Attach(SECOND), Refuse()),
        (KNOWN, seen(GONE, second=True), Learn(SECOND), Learn(SECOND)),
        (KNOWN, seen(UNSEEN), Learn(SECOND), Learn(SECOND)),
        # Success is told as often as it is asked for.
        (ended(0), seen(), Tell(), Refuse()),
        (ended(0, told=False), seen(), Tell(), Refuse()),
        # A failure that a retry can help: the next attempt, told or not. The same where somebody has stopped it.
        *((ended(code, told=told), seen(second=True), Submit(4), Submit(4))
          for code in (69, 71, 74, 75, 130, 143) for told in (True, False)),
        # A failure that a retry cannot help is told once; who calls again after that has changed something.
        *((ended(code, told=False), seen(second=True), Tell(), Submit(4)) for code in (2, 65, 66, 70, 76, 77, 78)),
        *((ended(code), seen(second=True), Submit(4), Submit(4)) for code in (2, 65, 66, 70, 76, 77, 78)),
        # An application of another host's spark-submit that came later than was waited for.
        (ended(75), seen(second=True, third=False), Attach(THIRD), Refuse()),
        (ended(65, told=False), seen(second=True, third=False), Attach(THIRD), Refuse()),
    ],
)  # fmt: skip
def test_what_is_done_next(before: Record | None, found: Seen, same: Action, other: Action) -> None:
    assert decide(before, ASKED, found) == same
    assert decide(before, OTHER, found) == other


@pytest.mark.parametrize(
    ("before", "is_needed"),
    [(None, False), (HELD, False), (ended(0), False), (LET_GO, True), (KNOWN, True), (ended(71), True)],
)
def test_yarn_is_asked_only_where_it_matters(before: Record | None, is_needed: bool) -> None:
    assert needs_yarn(before) == is_needed
    if not is_needed:
        everything = [
            seen(process, waited_s, **applications)
            for process in Process
            for waited_s in (0, 1000)
            for applications in ({}, {"second": False}, {"second": True})
        ]
        assert len({repr(decide(before, ASKED, each)) for each in everything}) == 1


@pytest.mark.parametrize(
    ("now", "differences"),
    [
        (OTHER, ["--epoch: 5 before, 6 now"]),
        (Asked.of("train", {"train_dir": "hdfs://nn/run"}, []), ["--epoch: 5 before, not given now"]),
        (Asked.of("train", ASKED.flags, ["--conf", "spark.x.password=secret"]), ["the flags after `--`"]),
        (Asked.of("evaluate", ASKED.flags, []), ["command: train before, evaluate now"]),
        (Asked.of("train", {**ASKED.flags, "dry_run": True}, []), []),
    ],
)
def test_other_flags_are_named(now: Asked, differences: list[str]) -> None:
    assert ASKED.differences(now) == differences
    assert (now == ASKED) == (differences == [])
    assert "secret" not in repr(now)


NIGHT = "manual__2026-11-29T00:00:00+00:00"


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("2026-11-29", "2026-11-29"),
        (NIGHT, "manual__2026-11-29T00=3A00=3A00=2B00=3A00"),
        (".", "=2E"),
        ("..", "=2E."),
        ("a/b", "a=2Fb"),
        ("a=2Fb", "a=3D2Fb"),
        ("Nächte", "N=C3=A4chte"),
        ("\udce4", "=E4"),
    ],
)
def test_any_word_is_a_name_on_hdfs(word: str, name: str) -> None:
    assert run_record.path_name(word) == name


def test_long_words_have_short_names_of_their_own() -> None:
    words = ["/" * 60 + end for end in ("a", "b")]
    names = {run_record.path_name(word) for word in words}
    assert len(names) == 2
    assert {len(name) for name in names} == {160}


def test_a_tag_is_what_yarn_takes_and_of_one_work_alone() -> None:
    works = [("hdfs://nn/me", NIGHT, "train", ASKED), ("hdfs://nn/you", NIGHT, "train", ASKED)]
    works += [("hdfs://nn/me", "x", "train", ASKED), ("hdfs://nn/me", NIGHT, "x", ASKED)]
    works += [("hdfs://nn/me", NIGHT, "train", OTHER)]
    tags = {run_record.tag_of(*work) for work in works}
    assert len(tags) == len(works)
    for tag in tags:
        assert tag == tag.lower()
        assert tag.isascii()
        assert len(tag) <= 100
        assert "," not in tag
    assert run_record.tag_of(*works[0]) == run_record.tag_of(*works[0])


def test_a_run_id_has_letters() -> None:
    with pytest.raises(FlagError, match="--run_id: empty"):
        run_record.folder("hdfs://nn/me", "", "train")
    with pytest.raises(FlagError, match="--stage: empty"):
        run_record.folder("hdfs://nn/me", "night", "")
    assert run_record.folder("hdfs://nn/me", "a:b", "train") == "hdfs://nn/me/submissions/a=3Ab/train"


@pytest.mark.parametrize("before", [HELD, AGAIN, KNOWN, ended(65, told=False)])
def test_a_record_is_read_as_it_was_written(before: Record) -> None:
    read = Record.from_json(json.loads(json.dumps(before.to_json())), "x")
    assert json.dumps(read.to_json()) == json.dumps(before.to_json())
    assert read.asked == ASKED


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({**HELD.to_json(), "format_version": 2}, "a record of version 2, this package reads 1"),
        ({}, "no record of a submission"),
        ([], "no record of a submission"),
        ("x", "no record of a submission"),
        ({**HELD.to_json(), "asked": None}, "no record of a submission"),
    ],
)
def test_what_is_no_record(value: Any, words: str) -> None:
    with pytest.raises(BadDataError, match=words) as caught:
        Record.from_json(value, "hdfs://nn/x")
    assert caught.value.place == "hdfs://nn/x"


def test_a_field_of_a_later_minor_version_is_overlooked() -> None:
    assert Record.from_json({**KNOWN.to_json(), "colour": "red"}, "x").application == SECOND


def test_an_attempt_knows_those_before_it() -> None:
    after = ended(71).next(OTHER, "tfos_job-run-2", 4)
    assert (after.number, after.state, after.application, after.asked) == (4, SUBMITTING, "", OTHER)
    assert after.earlier == [{"number": 3, "application": SECOND, "exit_code": 71}]
    assert HELD.next(ASKED, "tfos_job-run-1", 3) == dataclasses.replace(HELD, earlier=[])


LIST = """\
WARNING: log4j is not configured
Total number of applications (application-types: [], states: [NEW, RUNNING] and tags: [tfos_job-run-1]):3
                Application-Id\t    Application-Name\t    Application-Type\t      User\t     Queue\t             State\t       Final-State\t       Progress\t                       Tracking-URL
application_1795610618978_9999\ttfos_job convert hdfs://nn/a\tb\t               SPARK\t      root\troot.default\t           RUNNING\t         UNDEFINED\t            10%\thttp://nn:1
application_1795610618978_10000\ttfos_job convert RUNNING\t               SPARK\t      root\troot.default\t          FINISHED\t         SUCCEEDED\t           100%\thttp://nn:1
application_1795610618978_10001\ttfos_job convert hdfs://nn/a\t               SPARK\t      root\troot.default\t            KILLED\t            KILLED\t           100%\thttp://nn:1
"""  # noqa: E501 - as YARN writes it


def test_the_list_of_yarn() -> None:
    assert listed(LIST) == {FIRST: False, SECOND: True, THIRD: True}
    assert listed("Total number of applications (states: [] and tags: [x]):0\nApplication-Id\tName\n") == {}


@pytest.mark.parametrize("text", ["", "Retrying connect to server\n", LIST[: LIST.index(THIRD)]])
def test_what_is_no_list_is_not_an_empty_one(text: str) -> None:
    assert listed(text) is None
