"""The replicas of an all-reduce training: where they are, their statistics, what a block of their steps comes to."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfos_job.errors import ResourceError
from tfos_job.training.optimizer import FusedAdam
from tfos_job.training.replicas import Replica, replicas_of, statistics_averaged
from tfos_job.training.worker_graphs import block_of


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


# Loss, right guesses, images, worker, the record behind the batch, seconds of input, of the update and of all.
ROWS = np.array([[2.0, 3, 10, 0, 10, 0.1, 0.5, 1.0], [4.0, 1, 10, 1, 10, 0.3, 0.1, 1.0]])


def test_a_step_of_several_replicas_takes_as_long_as_each_of_them() -> None:
    later = np.add(ROWS, [0, 0, 0, 0, 10, 0, 0, 0])
    together = block_of(np.concatenate([ROWS, later]), num_steps=2, seconds=2.5, num_replicas=2)
    assert (together.steps, together.images, together.loss, together.top_1) == (2, 40, 3.0, 0.2)
    assert (together.step_s, together.input_wait_s, together.update_s) == pytest.approx((2.0, 0.4, 0.6))
    assert together.positions == {0: 20, 1: 20}
    # The one with less to wait for is the slower one.
    assert together.worker_step_s == pytest.approx({0: 0.5, 1: 0.9})
    alone = block_of(ROWS, num_steps=2, seconds=1.0)
    assert (alone.step_s, alone.update_s) == pytest.approx((2.0, 0.6))
    assert alone.worker_step_s == pytest.approx({0: 1.0, 1: 1.0})


def test_statistics_are_averaged_and_what_is_not_trained_stays_to_the_bit() -> None:
    replicas = []
    weights = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    for index in range(3):
        frozen = keras.layers.Dense(32, use_bias=False, trainable=False, name="frozen")
        model = keras.Sequential([keras.Input((32,)), frozen, keras.layers.BatchNormalization(name="bn")])
        frozen.kernel.assign(weights)
        model.get_layer("bn").moving_mean.assign(np.full(32, index, np.float32))
        replicas.append(Replica(index, "", model, FusedAdam(1e-3)))
    average = statistics_averaged(replicas)
    for _ in range(2):
        average()
    assert not np.array_equal((weights + weights + weights) / 3, weights)
    for replica in replicas:
        np.testing.assert_array_equal(replica.model.get_layer("frozen").kernel.numpy(), weights)
        np.testing.assert_array_equal(replica.model.get_layer("bn").moving_mean.numpy(), np.ones(32, np.float32))
