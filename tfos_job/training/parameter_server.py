"""The parameter-server engine: variables on `ps` tasks, steps on `worker` tasks, directed by the coordinator.

`tf.distribute.ParameterServerStrategy` with a `ClusterCoordinator`; docs/decisions/0001 says why. A closure is one
global step, or several of one worker. The coordinator chooses the worker of a closure, so with several workers the
number of steps is exact and their division among workers is not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfos_job.inference.evaluation import Counts
from tfos_job.input.normalization import Normalization, of_plan
from tfos_job.networks.parts import Parts, joined
from tfos_job.networks.variables import all_variables
from tfos_job.protocol.topology import CHIEF, PS, WORKER
from tfos_job.run.plan import TrainPlan
from tfos_job.training import placed_network
from tfos_job.training.engine import StepBlock
from tfos_job.training.exchange import Wire
from tfos_job.training.optimizer import FusedAdam
from tfos_job.training.snapshot import Snapshot
from tfos_job.training.step import MoreBatches, compute_seconds, train_step
from tfos_job.training.worker_graphs import block_of, counting, figures, taken, worker_dataset

_POLL_S = 0.02
# A closure costs some milliseconds of a worker's time, whatever is in it.
_CLOSURE_STEPS = 4
_HERE = f"/job:{CHIEF}/replica:0/task:0/device:CPU:0"


class _NoRecovery:
    """Replacement of TensorFlow's handler of failures: a closure that raises has failed.

    TensorFlow's own puts a closure back after an error of a connection, waits for a worker that is gone and rebuilds
    its dataset from the first position. Records would be read twice and updates counted twice, without a message. Here
    the attempt ends instead, and the next one resumes from the last checkpoint.
    """

    def stop(self) -> None:
        pass

    @contextlib.contextmanager
    def wait_on_failure(self, **_: Any) -> Iterator[None]:
        yield


class ParameterServerEngine:
    """See `engine.Engine`."""

    def __init__(self, cluster: Mapping[str, Sequence[str]]) -> None:
        """Connects to the cluster's servers, which must be up.

        Args:
          cluster: `host:port` of each task of `chief`, `ps` and `worker`.
        """
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(dict(cluster)), task_type=CHIEF, task_id=0, rpc_layer="grpc"
        )
        self._strategy = tf.distribute.ParameterServerStrategy(resolver)
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self._strategy)
        directed = self._coordinator._cluster
        directed.failure_handler.stop()
        for holder in (directed, *directed.workers):
            holder.failure_handler = _NoRecovery()
        self._num_ps_tasks = len(cluster[PS])
        self.steps_at_once = len(cluster[WORKER])
        self._plan: TrainPlan
        self._normalization: Normalization
        self._model: keras.Model
        self._optimizer: FusedAdam
        self._parts: Parts

    def start(self, plan: TrainPlan, variables: Mapping[str, np.ndarray] | None) -> None:
        self._plan = plan
        self._normalization = of_plan(plan.input.normalization, plan.input.statistics, variables)
        network = placed_network.build(self._strategy, self._num_ps_tasks, plan, variables)
        self._model, self._optimizer, self._parts = network.model, network.optimizer, network.parts
        self._snapshot = Snapshot(all_variables(self._model, self._optimizer), _HERE)
        self._batches = iter(
            self._coordinator.create_per_worker_dataset(lambda: worker_dataset(plan, self._normalization))
        )
        self._step = tf.function(self._closure)
        self._steps = tf.function(self._closures)
        self._count: dict[tuple[int, ...], Callable[[tf.Tensor], tf.Tensor]] = {}

    def _closure(self, batches: tf.data.Iterator) -> tf.Tensor:
        """One global step on one worker; returns its figures."""
        plan, num_more = self._plan, self._plan.push_every - 1

        def take_more(_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            asked = tf.timestamp()
            (images, labels, _), _, fed = taken(batches, after=asked)
            return images, labels, fed - asked

        begin = tf.timestamp()
        (images, labels, end_record), worker, fed = taken(batches, after=begin)
        with tf.control_dependencies([fed]):
            settings = plan.label_smoothing, Wire(plan.wire_dtype), MoreBatches(num_more, take_more)
            done = self._strategy.run(train_step, (self._model, self._optimizer, images, labels, *settings))
        num_images = tf.size(labels) * plan.push_every
        end_record += num_more * plan.input.batch_size
        counts = done.loss, done.num_correct, num_images, worker, end_record
        return figures(*counts, fed - begin + done.input_wait_s, done.updated - done.computed, done.updated - begin)

    def _closures(self, batches: tf.data.Iterator) -> tf.Tensor:
        """`_CLOSURE_STEPS` steps, one after the other, on one worker: a row of figures for each."""
        return tf.stack([self._step(batches) for _ in range(_CLOSURE_STEPS)])

    def _join(self, should_stop: Callable[[], bool] | None = None) -> bool:
        """Waits for the closures that were scheduled; False if it had to stop before.

        Raises the error of a closure, or of its argument: preloaded input is loaded as part of a worker's dataset,
        which is an argument. TensorFlow reports it once, and cancels all other closures.
        """
        try:
            if should_stop is None:
                self._coordinator.join()
                return True
            while not self._coordinator.done():
                if should_stop():
                    return False
                time.sleep(_POLL_S)
        except Exception as error:
            original = getattr(error, "original_exception", None)
            if isinstance(original, tf.errors.OpError):
                raise original from error
            raise
        return True

    def run(self, num_steps: int) -> StepBlock:
        began = time.monotonic()
        # As many long closures for each worker; what is left over one by one.
        num_long = num_steps // (_CLOSURE_STEPS * self.steps_at_once) * self.steps_at_once
        closures = [self._steps] * num_long + [self._step] * (num_steps - num_long * _CLOSURE_STEPS)
        results = [self._coordinator.schedule(closure, args=(self._batches,)) for closure in closures]
        self._join()
        table = np.concatenate([np.atleast_2d(result.fetch()) for result in results])
        return block_of(table, num_steps=num_steps, seconds=time.monotonic() - began)

    def measure_compute(self) -> float:
        """The average over as many measurements as there are workers, for all batches of a step."""
        plan = self._plan

        def measure() -> tf.Tensor:
            return compute_seconds(self._model, plan.input.batch_size, plan.form)

        measurement = tf.function(measure)
        results = [self._coordinator.schedule(measurement) for _ in range(plan.num_workers)]
        self._join()
        return plan.push_every * float(np.mean([result.fetch() for result in results]))

    def evaluate(self, shards: Sequence[str], ks: tuple[int, ...], should_stop: Callable[[], bool]) -> Counts | None:
        """One closure a shard: whichever worker takes it, each shard is counted once."""
        if ks not in self._count:
            self._count[ks] = counting(self._model, self._plan, self._normalization, ks)
        results = [self._coordinator.schedule(self._count[ks], args=(tf.constant(shard),)) for shard in shards]
        if not self._join(should_stop):  # a shard may take minutes
            return None
        return sum((Counts.from_vector(result.fetch(), ks) for result in results), Counts.zero(ks))

    def snapshot(self) -> dict[str, np.ndarray]:
        return {**joined(self._snapshot.take(), self._parts), **self._normalization.variables()}

    @property
    def num_parameters(self) -> tuple[int, int]:
        weights, trained = self._model.weights, self._model.trainable_weights
        return sum(math.prod(w.shape) for w in weights), sum(math.prod(w.shape) for w in trained)

    @property
    def step_bytes(self) -> tuple[int, ...]:
        return placed_network.step_bytes(self._model, self._num_ps_tasks, self._plan.wire_dtype)

    @property
    def global_step(self) -> int:
        return int(self._optimizer.iterations.numpy())

    @property
    def learning_rate(self) -> float:
        return float(self._optimizer.learning_rate)
