"""What an attempt waits for at its end: a child of this process stands for the coordinator, words come from threads."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tfos_job.driver import attempt
from tfos_job.driver.attempt import Attempt, AttemptSpec
from tfos_job.driver.stop_signal import StopSignal
from tfos_job.errors import BusyError, InterruptedJobError, NodeDiedError
from tfos_job.host.child import Child, child_environment
from tfos_job.protocol import messages
from tfos_job.protocol.events import Said
from tfos_job.protocol.failures import Failure, Kind, Process
from tfos_job.protocol.messages import Bottleneck, CheckpointBegun, CheckpointPublished, Progress
from tfos_job.protocol.topology import CHIEF, WORKER, Task, Topology

PATH = "checkpoints/step-00000005"
KILLED = Failure(
    Kind.KILLED, "its TensorFlow process was killed", NodeDiedError.exit_code, process=Process(Task(WORKER, 0), "h")
)
BOUND = Bottleneck(None, None, 10, 0.5, 0.005, None, 0.1, None)


class Told:
    """An attempt that hears `words`, in this order, and what it told in its turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_timeout: float = 60) -> None:
        for name in ("_NODES_STOP_S", "_CANCEL_S", "_COLLECT_S"):
            monkeypatch.setattr(attempt, name, 0.0)
        self.stop = StopSignal()
        self.messages: list[Any] = []
        self.guard: Callable[[], None] = lambda: None
        spec = AttemptSpec(
            topology=Topology(num_ps_tasks=1, num_workers=1),
            inputs=(),
            assignment={},
            num_gpus=0,
            driver_host="127.0.0.1",
            local=True,
            start_timeout=60,
            stall_timeout=600,
            stop_timeout=stop_timeout,
        )
        self.attempt = Attempt(
            None,
            spec,
            on_message=self.messages.append,
            on_phase=lambda _: None,
            stop=self.stop,
            guard=lambda: self.guard(),
        )
        # It waits for its assignment, which does not come.
        self.child = Child("tfos_job.nodes.driver_host", name="the coordinator", env=child_environment(""))
        self.attempt._coordinator = self.child
        monkeypatch.setattr(self.attempt, "_run", self.attempt._train)

    def hear(self, *words: Any) -> None:
        for word in words:
            is_event = isinstance(word, Failure)
            self.attempt._switchboard.events.put(word if is_event else Said(Task(CHIEF, 0), word))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    found = Told(monkeypatch)
    yield found
    found.child.end()


def test_a_checkpoint_on_its_way_is_published_though_a_worker_dies(told: Told) -> None:
    told.hear(CheckpointBegun(5), KILLED, CheckpointPublished(5, PATH, 1.0))
    with pytest.raises(NodeDiedError, match="was killed"):
        told.attempt.run()
    assert CheckpointPublished(5, PATH, 1.0) in told.messages


@pytest.mark.parametrize("ends", ["it died", "hurry", "time", "lock"])
def test_nobody_waits_for_a_checkpoint_that_cannot_come(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    told = Told(monkeypatch, stop_timeout=0.1 if ends == "time" else 1e9)
    told.hear(CheckpointBegun(5), KILLED)
    expected: type[Exception] = NodeDiedError
    if ends == "it died":
        told.child.process.kill()
        told.child.wait()
    elif ends == "hurry":
        told.stop.hurry = True
    elif ends == "lock":
        expected = BusyError

        def guard() -> None:
            raise BusyError("lost its lock")

        told.guard = guard
    with pytest.raises(expected):
        told.attempt.run()


def test_the_first_signal_tells_what_it_waits_for_and_the_second_one_does_not_wait(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    told.hear(CheckpointBegun(1), CheckpointPublished(1, PATH, 12.0), CheckpointBegun(2))

    def then_stop(message: messages.ToDriver) -> None:
        if isinstance(message, CheckpointPublished):
            told.stop.signum = signal.SIGTERM
            told.hear(Progress(2, 1.0, 0.5, 1e-4, 100.0, 0.0, BOUND))
        elif isinstance(message, Progress):
            told.stop.hurry = True

    told.attempt._on_message = then_stop
    with caplog.at_level("WARNING"), pytest.raises(InterruptedJobError) as caught:
        told.attempt.run()
    assert caught.value.exit_code == 143
    assert "the last checkpoint of this attempt is of step 1" in str(caught.value)
    assert (
        "Waiting for the running steps and a last checkpoint, some 12 s, at most 60 s (--stop_timeout)" in caplog.text
    )
