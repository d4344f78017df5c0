"""The account of a run over attempts and commands: what counts, what is kept, what is dropped."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tfos_job.driver import run_account
from tfos_job.driver.run_account import RunAccount
from tfos_job.errors import InterruptedJobError, JobError, NodeDiedError, ResourceError
from tfos_job.protocol.attempt_end import AttemptEnd, NodeRecord
from tfos_job.protocol.failures import Failure, Kind, Process
from tfos_job.protocol.messages import Bottleneck, Built, Evaluated, Progress
from tfos_job.protocol.topology import Task
from tfos_job.reports import page_attempts
from tfos_job.run import attempt_account, goodput
from tfos_job.run.summary import RunSummary

BOUND = Bottleneck(None, None, 10, 0.5, 0.005, None, 0.1, None)
WORKER = Process(task=Task("worker", 1), host="h")


def account(previous: dict[str, Any] | None = None, application: str = "", now_s: float = 0.0) -> RunAccount:
    return RunAccount(previous, {}, application=application, now_s=now_s)


def begin(made: RunAccount, number: int, start_step: int, now_s: float) -> None:
    made.begin({"number": number, "start_step": start_step, "started": "T"}, checkpoint=None, now_s=now_s)


def progress(step: int, seconds: float, **changes: Any) -> Progress:
    return Progress(step, 1.0, 0.5, 1e-4, 100.0, 0.01, BOUND, seconds=seconds, **changes)


def died(number: int, step: int, **changes: Any) -> AttemptEnd:
    first = Failure(Kind.KILLED, "killed", process=WORKER, detail="line\n")
    return AttemptEnd(
        **{"number": number, "outcome": NodeDiedError("killed"), "phase": "training", "first": first, "step": step,
           "followers": (first,), "stacks": {"chief:0": "stack"}, **changes}
    )  # fmt: skip


def test_phases_are_of_their_attempt_and_summed() -> None:
    made = account()
    begin(made, 1, 0, 0.0)
    for name, now_s in (("application", 1.0), ("training", 4.0), ("shutdown", 10.0)):
        made.begin_phase(name, now_s)
    made.end_attempt(died(1, 3), "restarted", {}, 12.0)
    made.begin_phase("backoff", 12.0)
    begin(made, 2, 0, 15.0)
    made.begin_phase("training", 15.0)
    made.end_attempt(died(2, 3), "ended", {}, 20.0)
    made.end(NodeDiedError("killed"), 21.0)
    first, second = (attempt["phases"] for attempt in made.values["attempts"])
    assert first == {"application": 3.0, "training": 6.0, "shutdown": 2.0}
    assert second == {"backoff": 3.0, "training": 5.0, "end": 1.0}
    sums = {"application": 3.0, "training": 11.0, "shutdown": 2.0, "end": 1.0, "backoff": 3.0}
    assert made.values["phases"] == sums
    again = account(json.loads(json.dumps(made.snapshot(21.0))))
    begin(again, 3, 0, 0.0)
    again.begin_phase("first_step", 0.0)
    again.begin_phase("training", 0.5)
    again.end(None, 4.5)
    assert again.values["first_step_s"] == 0.5
    sums["first_step"] = 0.5
    assert again.values["phases"] == sums | {"training": 15.0}


def test_a_restart_that_never_began_ends_with_the_phase_that_it_was_in() -> None:
    made = account()
    begin(made, 1, 0, 0.0)
    made.begin_phase("training", 0.0)
    made.end_attempt(died(1, 3), "restarted", {}, 4.0)
    made.begin_phase("backoff", 4.0)
    made.end(InterruptedJobError("stopped", signum=15), 6.0)
    assert made.values["phases"] == made.attempt["phases"] == {"training": 4.0, "backoff": 2.0}
    assert (made.attempt["state"], made.values["state"]) == ("failed", "interrupted")


def test_the_wire_is_told_with_what_was_measured() -> None:
    nodes = {"num_ps_tasks": 2, "num_workers": 4}
    facts = {"wire_dtype": "float32", "ps_placement": "greedy", "link_gbit": 1.0, **nodes}
    made = RunAccount(None, facts, application="", now_s=0.0)
    begin(made, 1, 0, 0.0)
    made.hear(Built(30, 20, (75_000_000, 25_000_000)))
    assert (made.values["num_parameters"], made.values["num_trained"]) == (30, 20)
    expected = {
        "engine": "parameter_server",
        "wire_dtype": "float32",
        "ps_placement": "greedy",
        "step_bytes": [75_000_000, 25_000_000],
        "num_workers": 4,
        "largest_share": 0.75,
        "link_gbit": 1.0,
        "expected_step_s": 2.4,
    }
    assert made.values["wire"] == expected
    made.hear(Progress(2, 1.0, 0.5, 1e-4, 100.0, 0.01, msgspec.structs.replace(BOUND, network_s=0.5)))
    assert made.values["wire"] == expected | {"measured_step_s": 0.5}


def test_steps_that_are_repeated_count_once() -> None:
    made = account(now_s=100.0)
    begin(made, 1, 0, 100.0)
    for step in (2, 4, 6):
        made.hear(progress(step, 3.0))
    assert made.snapshot(120.0)["goodput"] == 9 / 20
    made.end_attempt(died(1, 6), "restarted", {}, 120.0)
    begin(made, 2, 4, 130.0)
    first = made.snapshot(130.0)
    assert (first["counted_s"], first["elapsed_s"], first["goodput"]) == (6.0, 30.0, 0.2)
    made.hear(progress(6, 5.0))
    made.end(None, 140.0)
    ended = made.snapshot(140.0)
    assert (ended["counted_s"], ended["elapsed_s"], ended["num_restarts"]) == (11.0, 40.0, 1)

    # A later command goes on with it; the pause between two commands is not counted.
    later = account(ended, now_s=1000.0)
    begin(later, 3, 6, 1000.0)
    later.hear(progress(8, 4.0))
    found = later.snapshot(1010.0)
    assert (found["counted_s"], found["elapsed_s"], found["goodput"]) == (15.0, 50.0, 0.3)
    assert (found["num_attempts"], found["num_restarts"]) == (3, 1)


def test_the_pause_between_two_attempts_of_one_application_is_counted() -> None:
    updated = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1000))
    previous = {"application": "application_1", "updated": updated, "elapsed_s": 10.0, "step": 3, "attempts": [{}]}
    assert account(previous, "application_2").snapshot(0.0)["elapsed_s"] == 10.0
    same = account(previous, "application_1").snapshot(0.0)
    assert 1010.0 <= same["elapsed_s"] < 1100.0
    assert same["attempts"] == [{"state": "abandoned", "ended": updated, "end_step": 3}]


@pytest.mark.parametrize(("step", "seconds"), [(0, 0.0), (1, 0.0), (2, 3.0), (3, 4.0), (4, 5.0), (8, 9.0), (9, 9.0)])
def test_seconds_up_to_a_step_are_those_of_the_curve(step: int, seconds: float) -> None:
    curve = [{"step": 2, "seconds": 3.0}, {"step": 4, "seconds": 5.0}, {"step": 6}, {"step": 8, "seconds": 9.0}]
    assert goodput.counted_s(curve, step) == seconds


@pytest.mark.parametrize(
    ("counted_s", "elapsed_s", "found"), [(0.0, 5.0, None), (1.0, 0.0, None), (1.0, 3.0, 0.3333), (3.0, 2.9, 1.0)]
)
def test_goodput(counted_s: float, elapsed_s: float, found: float | None) -> None:
    assert goodput.goodput(counted_s, elapsed_s) == found


def test_a_long_run_has_a_short_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_account, "_MAX_CURVE_POINTS", 100)
    monkeypatch.setattr(run_account, "_MAX_ATTEMPTS", 10)
    made = account()
    for number in range(1, 31):
        begin(made, number, 10 * (number - 1), 0.0)
        for step in range(10 * number - 9, 10 * number + 1):
            made.hear(progress(step, 2.0))
            made.hear(Evaluated(step, "test", {"top_1": 0.5}))
        made.end_attempt(died(number, 10 * number), "restarted", {}, 0.0)
    values = made.snapshot(600.0)
    assert [attempt["number"] for attempt in values["attempts"]] == [1, *range(22, 31)]
    assert (values["num_attempts"], values["num_restarts"], values["counted_s"]) == (30, 29, 600.0)
    assert len(values["curve"]) <= 100 >= len(values["validation"])
    assert values["curve"][0]["step"] == 1
    assert values["curve"][-1]["step"] == values["validation"][-1]["step"] == 300
    detailed = [attempt["number"] for attempt in values["attempts"] if "stacks" in attempt]
    assert detailed == [*range(31 - attempt_account.NUM_DETAILED, 31)]
    assert detailed == [a["number"] for a in values["attempts"] if "last_lines" in a["first_cause"]]


def test_the_slow_worker_is_named_while_it_trains_and_at_the_end_with_its_host() -> None:
    made = account()
    begin(made, 1, 0, 0.0)
    made.hear(progress(2, 1.0, worker_step_s={"0": 1.0, "1": 1.2}))
    assert made.values["slowest_worker"] is None
    made.hear(progress(4, 1.0, worker_step_s={"0": 1.0, "1": 2.0}))
    assert made.values["slowest_worker"] == {"task": "worker:1", "host": None, "step_s": 1.6, "others_s": 1.0}
    nodes = (
        NodeRecord(process=Process(task=Task("worker", 0), host="g"), step_s=1.0),
        NodeRecord(process=WORKER, step_s=1.7),
    )
    made.end_attempt(died(1, 4, nodes=nodes), "ended", {}, 0.0)
    assert made.values["slowest_worker"] == {"task": "worker:1", "host": "h", "step_s": 1.7, "others_s": 1.0}


def test_a_restart_that_does_not_come_about_adds_to_the_phases_of_the_attempt_before() -> None:
    made = account()
    begin(made, 1, 0, 0.0)
    for name, now_s in (("containers", 0.0), ("training", 20.0)):
        made.begin_phase(name, now_s)
    made.end_attempt(died(1, 3), "restarted", {}, 30.0)
    made.begin_phase("containers", 30.0)
    made.end(ResourceError("2 of 3 executors have come"), 130.0)
    assert made.attempt["phases"] == made.values["phases"] == {"containers": 120.0, "training": 10.0}


@pytest.mark.parametrize(
    ("error", "has_place"),
    [
        (NodeDiedError("killed", place="worker:1"), True),
        (JobError("a bug in what follows"), False),
        (InterruptedJobError("stopped", signum=15), False),
    ],
)
def test_the_end_of_a_command_has_the_place_of_its_last_attempts_cause(error: JobError, *, has_place: bool) -> None:
    made = account()
    begin(made, 1, 0, 0.0)
    made.end_attempt(died(1, 0), "ended", {}, 0.0)
    made.end(error, 0.0)
    cause = made.values["first_cause"]
    assert (cause["fact"], cause["exit_code"]) == (error.fact, error.exit_code)
    assert ("host" in cause) == has_place
    assert made.values["exit_class"] == type(error).__name__


def test_numbers_that_json_does_not_have_are_null() -> None:
    made = account()
    begin(made, 1, 0, 0.0)
    made.hear(Evaluated(1, "test", {"loss": math.inf, "top_1": math.nan}))
    assert made.snapshot(0.0)["validation"] == [{"step": 1, "loss": None, "top_1": None}]


def ended() -> dict[str, Any]:
    """A report with one attempt, that has all fields."""
    made = account()
    begin(made, 1, 0, 0.0)
    made.end_attempt(died(1, 3, nodes=(NodeRecord(process=WORKER),)), "ended", {"h": "two have failed there"}, 1.0)
    made.end(NodeDiedError("killed"), 2.0)
    return made.snapshot(2.0)


def test_formats_has_every_field_as_it_is_written() -> None:
    report = ended()
    (attempt,) = report["attempts"]
    parts = (report, attempt, attempt["first_cause"], *attempt["followed_by"], *attempt["nodes"], report["phases"])
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")
    assert not {name for part in parts for name in part if f"`{name}`" not in text}


def test_the_page_has_words_for_every_field_of_an_attempt() -> None:
    """A field that it does not know, of a later version, is a column with its name."""
    report = ended()
    table = page_attempts.attempts(RunSummary(place="run", report=report))
    assert table is not None
    assert table.head[-1] == "records"
    report["attempts"][0]["later"] = 1
    table = page_attempts.attempts(RunSummary(place="run", report=report))
    assert table is not None
    assert table.head[-2:] == ("records", "later")
