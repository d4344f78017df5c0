"""Files of attempts, and the account of an attempt's end."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tfos_job import storage
from tfos_job.config import TrainConfig
from tfos_job.errors import DivergedError, InterruptedJobError, JobError, NodeDiedError
from tfos_job.layout import RunLayout
from tfos_job.protocol import failures
from tfos_job.protocol.attempt_end import AttemptEnd, NodeRecord
from tfos_job.protocol.failures import Failure, Kind, Process, Reason
from tfos_job.protocol.messages import Finished
from tfos_job.protocol.topology import COORDINATOR, Task
from tfos_job.run import attempt_account, attempts
from tfos_job.run.resume import Change

WORKER = Process(task=Task("worker", 0), host="a", container="container_1", log_url="http://a/log")
PS = Process(task=Task("ps", 0), host="b")
KILLED = Failure(Kind.KILLED, "its container was killed", process=WORKER, reason=Reason.MEMORY, detail="one\ntwo\n")
LOST = Failure(Kind.CONSEQUENCE, "connection reset", process=PS, exception="UnavailableError")


def end(outcome: JobError | Finished, **changes: Any) -> AttemptEnd:
    return AttemptEnd(**{"number": 1, "outcome": outcome, "phase": "training", "start_step": 2, "step": 5, **changes})


def test_attempts_are_counted_by_what_is_there(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    config = TrainConfig(dataset_dir="/data", train_dir=run.root)
    assert (attempts.committed_digest(run), attempts.next_number(run, None)) == (None, 1)
    first = attempts.begin(run, 1, config, [Change("epoch", 1, 2)], "a" * 64)
    assert first.path == run.attempt(1)
    assert json.loads(Path(first.path).read_text())["changes"] == [{"name": "epoch", "old": 1, "new": 2}]
    for number in (2, 11):
        storage.write_json(run.attempt(number), {})
    assert attempts.next_number(run, {"attempts": [{"number": 3}]}) == 12
    # One that ended before its file was written; of earlier versions, which had no numbers; of a report that is odd.
    assert attempts.next_number(run, {"attempts": [{"number": 12}]}) == 13
    assert attempts.next_number(run, {"attempts": [{}] * 14}) == 15
    assert attempts.next_number(run, {"attempts": [None, 3]}) == 12
    attempts.begin(run, 12, config, [], "b" * 64)
    assert attempts.committed_digest(run) == "b" * 64


def test_the_file_of_a_restart_has_the_settings_that_it_goes_on_with(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    config = TrainConfig(dataset_dir="/data", train_dir=run.root)
    first = attempts.begin(run, 1, config, [Change("epoch", 1, 2)], "a" * 64)
    second = attempts.restart(run, 2, first)
    assert not Path(second.path).exists()
    assert second.values == {**first.values, "attempt": 2, "changes": []}
    ended = attempts.end(second, {"state": "failed", "settings": second.path, "nodes": []})
    assert (ended["state"], ended["settings"], ended["nodes"]) == ("failed", first.values["settings"], [])


def test_the_account_of_an_attempt_names_the_first_cause_and_what_followed() -> None:
    nodes = (
        NodeRecord(process=WORKER, peak_bytes=900, limit_bytes=1000, num_oom_kills=1, step_s=0.25),
        NodeRecord(process=PS),
    )
    error = failures.to_error([LOST, KILLED])
    account = attempt_account.of_end(
        end(error, first=KILLED, followers=(LOST,), nodes=nodes, stacks={"chief:0": "Thread 1"})
    )
    assert json.loads(json.dumps(account)) == account
    assert (account["state"], account["start_step"], account["end_step"]) == ("failed", 2, 5)
    place = {"host": "a", "container": "container_1", "log_url": "http://a/log"}
    assert account["first_cause"] == {
        "task": "worker:0", "role": "worker", **place,
        "kind": "killed", "reason": "memory", "exception": "", "fact": "its container was killed",
        "place": "worker:0 on host a, container container_1", "next_step": error.next_step,
        "exit_code": 71, "class": "NodeDiedError", "last_lines": ["one", "two"],
    }  # fmt: skip
    assert account["followed_by"] == [
        {
            "task": "ps:0", "role": "ps", "host": "b", "container": None, "log_url": None,
            "kind": "consequence", "fact": "connection reset",
        }
    ]  # fmt: skip
    assert account["nodes"] == [
        {"task": "worker:0", "role": "worker", **place, "peak_bytes": 900, "limit_bytes": 1000, "num_oom_kills": 1,
         "step_s": 0.25},
        {"task": "ps:0", "role": "ps", "host": "b", "container": None, "log_url": None, "peak_bytes": None,
         "limit_bytes": None, "num_oom_kills": 0, "step_s": None},
    ]  # fmt: skip
    assert account["stacks"] == {"chief:0": "Thread 1"}
    short = attempt_account.without_details(account)
    assert not {"nodes", "followed_by", "stacks"} & short.keys()
    assert short["first_cause"] == {k: v for k, v in account["first_cause"].items() if k != "last_lines"}


class _SubclassError(NodeDiedError):
    """Of another module, as one of the user's own."""


@pytest.mark.parametrize(
    ("outcome", "state", "cause"),
    [
        (Finished(5, False, 1.0, 1, [1]), "finished", None),
        (Finished(5, True, 1.0, 1, [1]), "interrupted", None),
        (InterruptedJobError("stopped", signum=signal.SIGTERM), "interrupted", None),
        (DivergedError("NaN"), "failed", (76, "DivergedError", "NaN")),
        (JobError("bug"), "failed", (70, "JobError", "bug")),
        (_SubclassError("own"), "failed", (71, "NodeDiedError", "own")),
    ],
)
def test_the_state_of_an_attempt(outcome: JobError | Finished, state: str, cause: tuple[int, str, str] | None) -> None:
    account = attempt_account.of_end(end(outcome))
    assert account["state"] == state
    found = account["first_cause"]
    assert (found and (found["exit_code"], found["class"], found["fact"])) == cause


def test_what_is_long_is_cut() -> None:
    many = Failure(Kind.LOST, "gone" * 9999, process=WORKER, detail="\n".join("x" * 1000 for _ in range(99)))
    of_each = "old" + "y" * 30_000 + "new"
    account = attempt_account.of_end(
        end(
            failures.to_error([many]), first=many, followers=(LOST,) * 99,
            stacks={str(COORDINATOR): of_each, **{f"worker:{i}": of_each for i in range(99)}},
        )
    )  # fmt: skip
    assert len(json.dumps(account)) < 100_000
    assert account["stacks"]["chief:0"].endswith("new")


@pytest.mark.parametrize(
    ("step_s", "slowest"),
    [
        ({}, None),
        ({"worker:0": 9.0}, None),
        ({"worker:0": 1.0, "worker:1": 1.3}, None),
        ({"worker:0": 1.0, "worker:1": 1.31}, "worker:1"),
        ({"worker:0": 2.0, "worker:1": 1.0, "worker:2": 1.1, "worker:3": 9.0}, "worker:3"),
        ({"worker:0": 1.0, "worker:1": 1.0, "worker:2": 1.2}, None),
    ],
)
def test_the_slow_worker_is_named(step_s: dict[str, float], slowest: str | None) -> None:
    found = attempt_account.slowest_worker(step_s, {"worker:1": "h"})
    assert (found and found["task"]) == slowest
    if slowest == "worker:1":
        assert found == {"task": "worker:1", "host": "h", "step_s": 1.31, "others_s": 1.0}
