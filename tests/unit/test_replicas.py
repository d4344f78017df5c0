"""Where the replicas of an all-reduce training are."""

from __future__ import annotations

import pytest

from tfos_job.errors import ResourceError
from tfos_job.training.replicas import replicas_of


def devices(*counts: tuple[int, int]) -> list[str]:
    """The devices of a coordinator, and of workers with so many GPUs and CPUs each."""
    names = ["/job:chief/replica:0/task:0/device:CPU:0"]
    for task, (num_gpus, num_cpus) in enumerate(counts):
        of_task = f"/job:worker/replica:0/task:{task}/device"
        names += [f"{of_task}:CPU:{number}" for number in range(num_cpus)]
        names += [f"{of_task}:GPU:{number}" for number in range(num_gpus)]
    return names


@pytest.mark.parametrize(
    ("counts", "kind", "expected"),
    [
        ([(0, 1), (0, 1)], "CPU", [(0, 0), (1, 0)]),
        ([(0, 2), (0, 2)], "CPU", [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ([(2, 1), (2, 1)], "GPU", [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ([(0, 1)] * 11, "CPU", [(task, 0) for task in range(11)]),  # by number, not by name
    ],
)
def test_each_gpu_or_each_cpu_has_one(
    counts: list[tuple[int, int]], kind: str, expected: list[tuple[int, int]]
) -> None:
    names = [f"/job:worker/replica:0/task:{task}/device:{kind}:{number}" for task, number in expected]
    assert replicas_of(sorted(devices(*counts))) == names


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([(1, 1), (0, 1)], "as many GPUs on each worker: worker:0 has 1, worker:1 has 0"),
        ([(2, 1), (1, 1)], "worker:0 has 2, worker:1 has 1"),
        ([(0, 2), (0, 1)], "as many CPUs on each worker: worker:0 has 2, worker:1 has 1"),
    ],
)
def test_workers_that_would_wait_for_each_other_are_refused(counts: list[tuple[int, int]], words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        replicas_of(devices(*counts))
