from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tfos_job.protocol import messages
from tfos_job.protocol.failures import Failure, Kind, Process
from tfos_job.protocol.messages import Bottleneck, Built, Evaluated, Finished, Progress, Ready, Stop, ToDriver, ToNode
from tfos_job.protocol.topology import WORKER, Task
from tfos_job.training.bottleneck import StepProfile

PROFILES = [StepProfile(10, 1.0, 0.5, 0.1, compute_s) for compute_s in (None, 0.25)]
BOUND = Bottleneck(**PROFILES[1].to_json())


@pytest.mark.parametrize(
    "message",
    [
        Progress(5, 0.5, 0.25, 1e-4, 100.0, 0.01, BOUND),
        Built(2_794_763, 2_794_763, (11_179_052, 11_179_052)),
        Evaluated(5, "test", {"num_examples": 20, "loss": 1.0}),
        Evaluated(5, "test", {"loss": math.inf}),
        Finished(5, False, 1.0, 160, [160], BOUND),
        Failure(Kind.RAISED, "文字", 65, "place", "next", "detail", Process(Task(WORKER, 1), "host")),
    ],
)
def test_a_message_arrives_as_it_was_sent(message: Any) -> None:
    found = messages.decode(messages.encode(message), ToDriver)
    assert found == message
    if isinstance(message, Evaluated):
        assert [type(value) for value in found.metrics.values()] == [type(v) for v in message.metrics.values()]


def test_numbers_of_numpy_and_those_that_are_none_arrive() -> None:
    sent = Progress(5, np.float64(0.5), math.nan, 1e-4, 100.0, 0.01, BOUND)
    found = messages.decode(messages.encode(sent), ToDriver)
    assert (found.loss, type(found.loss)) == (0.5, float)
    assert math.isnan(found.top_1)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_bottleneck_is_the_json_of_a_step_profile(profile: StepProfile) -> None:
    document = profile.to_json()
    assert json.dumps(Bottleneck(**document).to_json()) == json.dumps(document)


PROGRESS = messages.to_json(Progress(5, 0.5, 0.25, 1e-4, 100.0, 0.01, BOUND))


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"a": 1},
        {"type": "Nothing"},
        {"type": "Ready"},
        {"type": "Ready", "pid": "1"},
        {"type": "Ready", "pid": 1, "more": 2},
        {"type": "Stop"},  # that is for the driver to say
        {"type": "Failure", "kind": "unknown", "cause": "?"},
        {**PROGRESS, "step": "x"},
        {**PROGRESS, "loss": None},
        {**PROGRESS, "bound": {"by": None}},
    ],
)
def test_what_the_driver_does_not_understand_is_an_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        messages.decode(json.dumps(value).encode(), ToDriver)


@pytest.mark.parametrize("data", [b"", b"\xff", b"null", messages.encode(Ready(1))])
def test_what_a_node_does_not_understand_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        messages.decode(data, ToNode)
    assert messages.decode(messages.encode(Stop()), ToNode) == Stop()
