"""Whose GPUs a worker gets, where the user has said which."""

from __future__ import annotations

import pytest

from tfos_job.errors import ResourceError
from tfos_job.host import gpus
from tfos_job.nodes import node
from tfos_job.nodes.node import NodeArgs
from tfos_job.protocol.topology import WORKER, Task


@pytest.mark.parametrize(
    ("found", "allowed"),
    [
        ("3", ("3",)),
        ("2, 0", ("2", "0")),
        ("GPU-1f,MIG-2", ("GPU-1f", "MIG-2")),
        ("1,-1,2", ("1",)),
        ("", ()),
        ("-1", ()),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(found: str, allowed: tuple[str, ...]) -> None:
    assert gpus.allowed({gpus.VARIABLE: found}) == allowed
    assert gpus.allowed({}) is None


@pytest.mark.parametrize(
    ("assigned", "found", "given"),
    [
        (["0"], None, ("0",)),
        (["0"], "3", ("3",)),  # counted by somebody who knew of all of them
        (["1", "0"], "5,7", ("7", "5")),
        (["7"], "5,7", ("7",)),  # by somebody who knew what is allowed
        (["GPU-a"], "GPU-a,GPU-b", ("GPU-a",)),
        (["2"], "5,7", ()),
        (["0"], "", ()),
    ],
)
def test_what_is_assigned_is_among_what_is_allowed(assigned: list[str], found: str | None, given: tuple[str]) -> None:
    assert gpus.within(assigned, {} if found is None else {gpus.VARIABLE: found}) == given


def test_a_local_worker_leaves_other_peoples_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "driver": ("h", 1),
        "key": b"",
        "attempt": 1,
        "driver_host_tasks": {},
        "inputs": (),
        "num_gpus": 1,
        "start_timeout": 1,
    }
    args = NodeArgs(local=True, **settings)
    assert node._gpu_addresses(Task(WORKER, 1), args) == ("1",)
    monkeypatch.setenv(gpus.VARIABLE, "3")
    assert node._gpu_addresses(Task(WORKER, 0), args) == ("3",)
    with pytest.raises(ResourceError, match=r"^CUDA_VISIBLE_DEVICES=3 leaves this worker 0 of 1 GPUs"):
        node._gpu_addresses(Task(WORKER, 1), args)
    assert node._gpu_addresses(Task(WORKER, 1), NodeArgs(local=True, allow_cpu=True, **settings)) == ()
