from __future__ import annotations

import itertools

import pytest

from tfos_job.cluster import failures
from tfos_job.cluster.failures import Failure, first_cause, to_error
from tfos_job.cluster.topology import CHIEF, PS, Task
from tfos_job.errors import BadDataError, NodeDiedError

KILLED = Failure(failures.KILLED, Task(PS, 0), "host-a", "its TensorFlow process 7 was killed by SIGKILL")
LOST = Failure(failures.LOST, Task(CHIEF, 0), "driver", "the line to it is gone")
SPARK = Failure(failures.SPARK, None, "", "Job aborted")
CONSEQUENCE = Failure(failures.CONSEQUENCE, Task(CHIEF, 0), "driver", "UnavailableError")


@pytest.mark.parametrize("order", list(itertools.permutations([KILLED, LOST, SPARK, CONSEQUENCE])))
def test_the_killed_process_explains_the_others_in_whichever_order_they_report(order: tuple[Failure, ...]) -> None:
    assert first_cause(order) is KILLED
    error = to_error(order)
    assert isinstance(error, NodeDiedError)
    assert error.place == "ps:0 on host host-a"
    assert "followed by chief:0" in error.fact


def test_of_equals_the_first_to_arrive() -> None:
    other = Failure(failures.KILLED, Task(PS, 1), "host-b", "killed")
    assert first_cause([other, KILLED]) is other


def test_an_error_keeps_its_exit_code() -> None:
    bad = Failure(failures.RAISED, Task(CHIEF, 0), "driver", "part-3: record 5 cannot be read", BadDataError.exit_code)
    error = to_error([SPARK, bad])
    assert isinstance(error, BadDataError)
    assert "followed by" not in error.fact


def test_log_tail_leaves_out_what_every_process_says() -> None:
    lines = ["WARNING: All log messages before absl::InitializeLog() is called\n", "I0000 00:00 port.cc\n", "E real\n"]
    assert failures.log_tail(lines) == "E real\n"
    assert failures.signal_name(9) == "SIGKILL"
