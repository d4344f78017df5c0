"""`report --follow` beside a run that goes on, in a folder: each reading of it is followed by the run's next move."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tfos_job import cli, storage
from tfos_job.errors import NodeDiedError
from tfos_job.layout import RunLayout
from tfos_job.lease import Lease
from tfos_job.local_jobs import follow
from tfos_job.local_jobs.follow import Phase
from tfos_job.lock_file import Hold

ATTEMPT = {"host": "h", "started": "2026-11-29T01:30:00Z", "start_step": 0}


def report(run: RunLayout, **values: Any) -> None:
    known = {"state": "running", "step": 0, "total_steps": 9, "attempts": [ATTEMPT], "metrics": {}}
    storage.write_json(run.report, known | values)


def sleeper(moves: Iterator[Callable[[], object]]) -> Callable[[float], None]:
    """A sleep in which the run makes its next move."""

    def sleep(_: float) -> None:
        next(moves)()

    return sleep


@pytest.mark.parametrize(
    ("hold", "state", "expected"),
    [
        (Hold.FREE, None, Phase.AWAITED),
        (Hold.ABANDONED, None, Phase.AWAITED),
        (Hold.HELD, None, Phase.STARTING),
        (Hold.HELD, "finished", Phase.STARTING),  # it is resumed
        (Hold.HELD, "running", Phase.GOING),
        (Hold.FREE, "running", Phase.ABANDONED),
        (Hold.ABANDONED, "running", Phase.ABANDONED),
        (Hold.FREE, "failed", Phase.ENDED),
        (Hold.ABANDONED, "finished", Phase.ENDED),
    ],
)
def test_where_a_run_stands(hold: Hold, state: str | None, expected: Phase) -> None:
    assert follow.phase(hold, state) is expected
    assert follow.phase(Hold.HELD, "finished", was_going=True) is Phase.GOING  # it has not released the lock yet


def test_a_run_is_followed_from_before_its_beginning_to_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tfos_job")
    run, lock = RunLayout(str(tmp_path / "run")), Lease(str(tmp_path / "run" / "_lock"), "tfos-job train")

    def moves() -> Iterator[Callable[[], object]]:
        yield lambda: None
        yield lock.__enter__
        yield lambda: report(run)
        yield lambda: report(run, step=4, checkpoint="c4", validation=[{"step": 4, "top_1": 0.5}])
        yield lambda: report(run, step=9, state="finished", exit_code=0, checkpoint="c9")
        yield lambda: lock.__exit__(None, None, None)
        yield lambda: None

    ended = follow.follow(run.root, sleep=sleeper(moves()))
    assert (ended["state"], ended["step"]) == ("finished", 9)
    assert follow.own_error(run.root, ended) is None
    assert [record.message.removeprefix(f"{run.root}: ") for record in caplog.records] == [
        "no run there yet; waiting for one to begin",
        "a command has begun to work on it; its report follows",
        "running; a driver that dies is noticed within 60 s",
        "attempt 1 on h, began 2026-11-29T01:30:00Z at step 0",
        "step 0 of 9",
        "step 4: validation: top-1 50.0 %",
        "checkpoint c4",
        "step 4 of 9",
        "checkpoint c9",
        "step 9 of 9",
    ]


def test_a_driver_that_is_gone_ends_it(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    report(run, step=4)
    ended = follow.follow(run.root, sleep=lambda _: None)
    assert ended["abandoned"]
    assert isinstance(follow.own_error(run.root, ended), NodeDiedError)


def test_a_lock_that_is_free_for_a_moment_is_no_end(tmp_path: Path) -> None:
    """The next command takes the lock between the two readings of one look."""
    run, lock = RunLayout(str(tmp_path)), Lease(str(tmp_path / "_lock"), "tfos-job train")
    report(run, step=4)

    def moves() -> Iterator[Callable[[], object]]:
        yield lock.__enter__
        yield lambda: report(run, state="finished", exit_code=0, step=9)
        yield lambda: lock.__exit__(None, None, None)
        yield lambda: None

    assert follow.follow(run.root, sleep=sleeper(moves()))["step"] == 9


@pytest.mark.parametrize(
    ("ended", "code", "words"),
    [
        ({"state": "finished", "exit_code": 0}, 0, ""),
        (
            {"state": "failed", "exit_code": 71, "first_cause": {"fact": "killed", "place": "ps:0", "next_step": "x"}},
            71,
            "ps:0: killed. x",
        ),
        ({"state": "interrupted", "exit_code": 143}, 143, "the run is interrupted"),
        ({"state": "running"}, 71, "its driver is gone"),
    ],
)
def test_the_command_ends_as_the_run_did(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    ended: dict[str, Any], code: int, words: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(follow, "_POLL_S", 0.0)
    report(RunLayout(str(tmp_path)), **ended)
    assert cli.main(["report", str(tmp_path), "--follow"]) == code
    out, err = capfd.readouterr()
    assert words in err
    assert json.loads(out)["state"] == ended["state"]
