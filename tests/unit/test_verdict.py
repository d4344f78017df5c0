"""A run as its folder tells it, beside the run before it: summary, verdict, settings, news."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.flags import parse_config
from tfos_job import storage
from tfos_job.config import TrainConfig, to_dict
from tfos_job.errors import MissingInputError
from tfos_job.layout import RunLayout
from tfos_job.run import attempt_words, given_settings, previous_run, quantities, summary, verdict
from tfos_job.run.news import News
from tfos_job.run.summary import RunSummary


def attempt(started: str, ended: str | None, **more: object) -> dict[str, object]:
    day = "2026-11-29T"
    return {"started": f"{day}{started}Z", "ended": ended and f"{day}{ended}Z", **more}


def evaluation(split: str, step: int, top_1: float, num_examples: int = 1000) -> dict[str, Any]:
    return {"split": split, "step": step, "top_1": top_1, "loss": 0.5, "num_examples": num_examples}


# --- quantities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (12345, "12,345"), (0.93214287, "0.932"), (0.0, "0"), (531.41, "531"), (12345.6, "12,346"),
     (3.0, "3.00"), (28.456, "28.5"), (0.00020000001, "0.000200"), (1e-9, "1e-09"), (-0.5, "-0.500"),
     (float("nan"), "nan"), (float("inf"), "inf")],
)  # fmt: skip
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert quantities.number(value) == text


def test_shares_have_the_digits_that_their_records_carry() -> None:
    assert quantities.share(0.93214287) == "93.2 %"
    assert quantities.share(0.93214287, 200) == "93.2 %"
    assert quantities.share(0.93214287, 100_000) == "93.21 %"
    assert (quantities.points(0.0184), quantities.points(-0.005)) == ("+1.84", "−0.50")


@pytest.mark.parametrize(
    ("value_s", "text"),
    [(0.0441, "44 ms"), (3.14, "3.1 s"), (45.2, "45 s"), (78, "1 min 18 s"), (120, "2 min"), (3599.9, "1 h"),
     (3 * 3600 + 300, "3 h 5 min"), (200_000, "2 d 7 h")],
)  # fmt: skip
def test_durations_have_two_units(value_s: float, text: str) -> None:
    assert quantities.duration(value_s) == text


# --- summary and verdict ---------------------------------------------------------------------------------------------


def test_a_run_of_several_attempts_lasts_as_long_as_they_together() -> None:
    attempts = [attempt("01:30:00", "01:40:00", host="a"), attempt("08:00:00", None, host="b")]
    run = RunSummary(place="/r/night", report={"attempts": attempts, "updated": "2026-11-29T08:05:30Z"})
    assert (run.name, run.host, run.duration_s) == ("night", "b", 930.0)
    assert (run.started, run.ended) == ("2026-11-29T01:30:00Z", "2026-11-29T08:05:30Z")
    waited = RunSummary(place="/r", report={**run.report, "elapsed_s": 1000.0})
    assert waited.duration_s == 1000.0  # with what was between restarts
    odd = RunSummary(place="/r", report={"attempts": [None, {"started": "?"}]})
    assert (odd.host, odd.duration_s) == ("", None)
    assert RunSummary(place="/r", report={}).duration_s is None


def test_the_newest_result_on_each_split_counts_and_validation_comes_last() -> None:
    run = RunSummary(
        place="/r",
        report={"metrics": {"train_loss": 0.1, "evaluated_step": 50, "top_1": 0.8, "loss": 1.0, "num_examples": 7}},
        settings={"validation_split_name": "dev"},
        evaluations=[evaluation("train", 40, 0.99), evaluation("test", 20, 0.7), evaluation("test", 40, 0.75),
                     evaluation("dev", 30, 0.6)],
    )  # fmt: skip
    assert [(s.label, s.step, s.top_1) for s in run.scores] == [
        ("test", 40, 0.75), ("train", 40, 0.99), ("dev (validation)", 50, 0.8),
    ]  # fmt: skip
    assert "train_loss" not in run.scores[-1].metrics


def test_a_difference_is_told_with_whether_it_may_be_chance() -> None:
    before = RunSummary(place="/a", report={}, evaluations=[evaluation("test", 9, 0.90)])
    words = {}
    for top_1, num in ((0.91, 1000), (0.95, 1000), (0.91, 1_000_000), (0.90, 1000)):
        (standing,) = verdict.standings(
            RunSummary(place="/b", report={}, evaluations=[evaluation("test", 9, top_1, num)]), before
        )
        words[top_1, num] = standing.words
    assert words == {
        (0.91, 1000): "+1.00 points (may be chance)",
        (0.95, 1000): "+5.00 points",
        (0.91, 1_000_000): "+1.00 points (may be chance)",  # the other one has few records
        (0.90, 1000): "+0.00 points",
    }
    (alone,) = verdict.standings(before, None)
    assert (alone.difference, alone.words) == (None, "")
    (elsewhere,) = verdict.standings(before, RunSummary(place="/c", report={}, evaluations=[evaluation("x", 1, 0.5)]))
    assert elsewhere.words == ""


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"state": "finished", "exit_code": 0}, "finished"),
        ({"state": "failed", "exit_code": 71}, "failed, exit code 71"),
        ({"state": "interrupted", "exit_code": 143}, "interrupted, exit code 143"),
        ({"state": "running", "exit_code": None}, "running"),
        ({}, "unknown"),
    ],
)
def test_the_state_in_words(report: dict[str, object], words: str) -> None:
    assert summary.words(RunSummary(place="/r", report=report)) == words


def test_the_command_of_a_run_gives_its_settings_again() -> None:
    config = TrainConfig(
        dataset_dir="hdfs://h/a b", train_dir="run", epoch=3, learning_rate=0.002, random_flip_up_down=True,
        model_name="hanzi_net", overwrite=True,
    )  # fmt: skip
    parts = given_settings.command(to_dict(config))
    program, name, *words = shlex.split(" ".join(parts))
    assert (program, name) == ("tfos-job", "train")
    assert "--overwrite" not in words
    assert to_dict(parse_config("train", words)) == to_dict(config) | {"overwrite": False}
    changed, same = given_settings.split(to_dict(config) | {"of_another_version": 3})
    assert [s.name for s in changed[:2]] == ["dataset_dir", "train_dir"]
    assert ("learning_rate", "0.002", "0.0002") in changed
    assert ("of_another_version", "3", "") in changed
    assert not {s.name for s in changed} & {s.name for s in same}
    assert given_settings.command({}) == []


# --- the run before --------------------------------------------------------------------------------------------------


def make_run(
    folder: Path, ended: str, *, dataset: str = "/data", state: str = "finished", mtime: int = 0
) -> RunSummary:
    run = RunLayout(str(folder))
    folder.mkdir(parents=True)
    storage.write_json(run.report, {"state": state, "attempts": [attempt("00:00:00", ended)]})
    storage.write_json(run.config, {"dataset_dir": dataset})
    os.utime(run.report, (mtime, mtime))
    return summary.read(run.root)


def test_the_run_before_is_the_newest_finished_one_of_the_dataset_in_the_folders_beside_it(tmp_path: Path) -> None:
    today = make_run(tmp_path / "today", "06:00:00", mtime=600)
    assert previous_run.find(today) is None
    make_run(tmp_path / "a", "02:00:00", mtime=200)
    make_run(tmp_path / "b", "03:00:00", mtime=300, dataset="/data/")
    make_run(tmp_path / "failed", "04:00:00", mtime=400, state="failed")
    make_run(tmp_path / "elsewhere", "05:00:00", mtime=500, dataset="/other")
    make_run(tmp_path / "tomorrow", "07:00:00", mtime=700)
    make_run(tmp_path / "deeper" / "c", "05:30:00", mtime=550)
    damaged = make_run(tmp_path / "damaged", "05:00:00", mtime=500)
    Path(damaged.place, "report.json").write_text("{")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    found = previous_run.find(today)
    assert found is not None
    assert found.place == str(tmp_path / "b")
    assert previous_run.find(RunSummary(place=str(tmp_path / "today"), report={})) is None  # of no known dataset


def test_a_run_without_a_report_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such run"):
        summary.read(str(tmp_path))


# --- news ------------------------------------------------------------------------------------------------------------


def test_what_is_new_is_told_once() -> None:
    news = News()
    report: dict[str, Any] = {
        "attempts": [{"host": "h", "started": "T", "start_step": 0}],
        "step": 0, "total_steps": 100, "batch_size": 32, "metrics": {}, "images_per_second": None, "checkpoint": None,
    }  # fmt: skip
    assert news.of(report) == ["attempt 1 on h, began T at step 0", "step 0 of 100"]
    assert news.of(report) == []
    report |= {"step": 20, "images_per_second": 320.0, "metrics": {"train_loss": 0.51234}}
    assert news.of(report, with_step=False) == []
    assert news.of(report) == ["step 20 of 100: loss 0.512, 320 images/s, 8.0 s left"]
    report |= {"checkpoint": "c", "validation": [{"step": 20, "top_1": 0.75, "loss": 0.9, "num_examples": 200}]}
    assert news.of(report) == ["step 20: validation: top-1 75.0 %, loss 0.900", "checkpoint c"]
    assert News().of({"attempts": [None], "metrics": 3, "validation": None}) == []  # of another version


KILLED = {"task": "worker:0", "host": "a", "place": "worker:0 on host a", "fact": "was killed by SIGKILL"}


def failed(number: int, step: int, decision: str = "restarted after 0.0 s: restart 1 of 3") -> dict[str, Any]:
    return {
        "number": number, "host": "h", "started": "T", "start_step": 0, "end_step": step, "state": "failed",
        "first_cause": KILLED, "decision": decision,
    }  # fmt: skip


def test_restarts_are_told_with_their_cause() -> None:
    news = News()
    running: dict[str, Any] = {"number": 1, "host": "h", "started": "T", "start_step": 0}
    assert news.of({"attempts": [running]}, with_step=False) == ["attempt 1 on h, began T at step 0"]
    assert news.of({"attempts": [failed(1, 45)]}, with_step=False) == [
        "attempt 1 failed at step 45: worker:0 on host a: was killed by SIGKILL; another one follows"
    ]
    second = running | {"number": 2, "start_step": 40}
    report = {"attempts": [failed(1, 45), second]}
    assert news.of(report, with_step=False) == ["restarted from step 40: attempt 2 on h, restart 1 of 3"]
    assert news.of(report, with_step=False) == []
    # Both within one look, and a last one that nothing follows.
    ended = [failed(1, 45), failed(2, 47, "restarted after 3.1 s: restart 2 of 3"), running | {"number": 3}]
    assert news.of({"attempts": ended}, with_step=False) == [
        "attempt 2 failed at step 47: worker:0 on host a: was killed by SIGKILL; another one follows",
        "restarted from step 0: attempt 3 on h, restart 2 of 3",
    ]
    ended[-1] = failed(3, 47, "ended: --max_restarts 3")
    assert news.of({"attempts": ended}, with_step=False) == []
    # Those of a long run are not all in its report.
    many = [failed(1, 3), *(failed(number, number) for number in range(900, 998))]
    assert news.of({"attempts": [*many, running | {"number": 998, "start_step": 990}]}, with_step=False)[-1] == (
        "restarted from step 990: attempt 998 on h, restart 1 of 3"
    )


def test_attempts_in_words() -> None:
    node = {"task": "worker:0", "host": "a", "peak_bytes": 900 << 20, "limit_bytes": 1 << 30, "num_oom_kills": 1}
    report: dict[str, Any] = {
        "num_attempts": 3, "num_restarts": 2, "goodput": 0.873, "elapsed_s": 100.0, "updated": "2026-11-29T00:00:00Z",
        "attempts": [failed(1, 45), failed(2, 47) | {"nodes": [node, {"task": "ps:0"}]}, {"number": 3}],
        "slowest_worker": {"task": "worker:1", "host": "b", "step_s": 1.5, "others_s": 0.5},
        "excluded_hosts": [{"host": "a", "reason": "2 attempts have failed there"}],
    }  # fmt: skip
    run = RunSummary(place="/r", report=report)
    assert run.goodput == 0.873
    assert attempt_words.count(report) == "3 (2 by a restart)"
    assert attempt_words.memories(run.attempts) == [("memory of worker:0", "900 MiB of 1.0 GiB, killed 1 × on host a")]
    assert attempt_words.slowest_worker(report) == "worker:1 on host b: 1.5 s a step, the others 500 ms"
    assert attempt_words.excluded_hosts(report) == "a (2 attempts have failed there)"
    told = attempt_words.failed_before(report)
    end = "failed at step 45: worker:0 on host a: was killed by SIGKILL; restarted after 0.0 s: restart 1 of 3"
    assert told == [("attempt 1", end), ("attempt 2", end.replace("45", "47"))]
    over = report | {"attempts": report["attempts"][:2], "first_cause": KILLED}
    assert attempt_words.failed_before(over) == told[:1]  # the last one's cause is the run's


def test_the_phases_of_an_application_are_those_of_its_attempts() -> None:
    attempts = [
        {"application": "application_1", "phases": {"build": 9.0}},
        {"application": "application_2", "phases": {"build": 1.0, "training": 5.0}},
        {"application": "application_2", "phases": {"build": 2.0}},
        {"application": "application_2"},
    ]
    assert summary.phases_of({"attempts": attempts}, "application_2") == {"build": 3.0, "training": 5.0}


def test_no_time_is_left_before_there_is_a_rate_of_this_attempt() -> None:
    resumed: dict[str, Any] = {
        "step": 40,
        "total_steps": 100,
        "batch_size": 32,
        "metrics": {},
        "images_per_second": 9.0,
    }
    assert News().of(resumed) == ["step 40 of 100"]
    resumed |= {"attempts": [{"start_step": 39}], "metrics": {"train_loss": 0.5}}
    assert News().of(resumed)[-1] == "step 40 of 100: loss 0.500, 9.00 images/s"
    assert News().of(resumed | {"step": 41})[-1] == "step 41 of 100: loss 0.500, 9.00 images/s, 3 min 30 s left"
    several = News().of(resumed | {"step": 41, "push_every": 3})[-1]
    assert several == "step 41 of 100: loss 0.500, 9.00 images/s, 10 min 29 s left"
