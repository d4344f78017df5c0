"""The all-reduce engine: each worker has all variables, and a step is one update of all workers together.

TensorFlow's own collectives among the workers, in graphs that the coordinator places on them; docs/decisions/0007 says
why not `MultiWorkerMirroredStrategy`. A replica is a GPU of a worker, or its CPU. All replicas make the same update of
the same variables, so they stay the same; moving statistics are each replica's own until someone asks for them.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tfos_job.inference.evaluation import Counts
from tfos_job.input.normalization import Normalization, of_plan
from tfos_job.networks.variables import all_variables
from tfos_job.protocol.topology import CHIEF, WORKER
from tfos_job.run.placement import all_reduce_bytes
from tfos_job.run.plan import TrainPlan
from tfos_job.training.engine import StepBlock
from tfos_job.training.replicas import Replica, Ring, built, replicas_of, statistics_averaged
from tfos_job.training.snapshot import Snapshot
from tfos_job.training.step import MoreBatches, compute_seconds, train_step
from tfos_job.training.worker_graphs import block_of, counting, figures, taken, worker_dataset

_POLL_S = 0.02
_HERE = f"/job:{CHIEF}/replica:0/task:0/device:CPU:0"
_Result = TypeVar("_Result")
_Batches = Sequence[tuple[tf.Tensor, tf.Tensor]]


class AllReduceEngine:
    """See `engine.Engine`."""

    steps_at_once = 1

    def __init__(self, cluster: Mapping[str, Sequence[str]]) -> None:
        """Connects to the cluster's servers, which must be up.

        Args:
          cluster: `host:port` of each task of `chief` and `worker`. Worker 0 leads the collectives of the servers
            (`training/server_process.py`).
        """
        spec = tf.train.ClusterSpec({role: list(cluster[role]) for role in (CHIEF, WORKER)})
        tf.config.experimental_connect_to_cluster(spec, job_name=CHIEF, task_index=0, protocol="grpc")
        self._places = replicas_of([device.name for device in tf.config.list_logical_devices()])
        # Without a device: what is made there chooses its own, a GPU where there is one.
        self._hosts = [f"/job:{WORKER}/replica:0/task:{index}" for index in range(len(cluster[WORKER]))]
        self._threads = ThreadPoolExecutor(len(self._hosts), thread_name_prefix="worker")
        self._count: dict[tuple[int, ...], list[Callable[[tf.Tensor], tf.Tensor]]] = {}
        self._starts = 0
        self._has_stepped = False
        self._plan: TrainPlan
        self._normalization: Normalization
        self._replicas: list[Replica]
        self._batches: list[tf.data.Iterator]

    def start(self, plan: TrainPlan, variables: Mapping[str, np.ndarray] | None) -> None:
        self._plan = plan
        self._starts += 1
        self._count.clear()
        self._has_stepped = False
        self._normalization = of_plan(plan.input.normalization, plan.input.statistics, variables)
        self._replicas = built(self._places, plan, variables)
        first = self._replicas[0]
        self._snapshot = Snapshot(all_variables(first.model, first.optimizer), _HERE)
        self._average = statistics_averaged(self._replicas)
        # Graphs, since TensorFlow would warn of a function that is made anew for each of many workers.
        self._batches = self._on_workers(lambda _: tf.function(self._iterator).get_concrete_function()())
        self._take = tf.function(self._taken)
        self._steps = [tf.function(self._replica_step(replica)) for replica in self._replicas]
        self._step = tf.function(self._global_step)

    def _iterator(self) -> tf.data.Iterator:
        return iter(worker_dataset(self._plan, self._normalization))

    def _on_workers(self, call: Callable[[int], _Result]) -> list[_Result]:
        """Makes a call for each worker, all at the same time."""
        begun = [self._begun(worker, functools.partial(call, worker)) for worker in range(len(self._hosts))]
        return [future.result() for future in begun]

    def _begun(self, worker: int, call: Callable[[], _Result]) -> Future[_Result]:
        """Begins a call in a thread: what it runs eagerly is placed on that worker."""

        def run() -> _Result:
            with tf.device(self._hosts[worker]):
                return call()

        return self._threads.submit(run)

    @property
    def _per_worker(self) -> int:
        """Replicas on each worker."""
        return len(self._replicas) // len(self._hosts)

    def _global_step(self, *batches: tf.data.Iterator) -> tf.Tensor:
        """One step of all replicas; a row of figures for each of them."""
        rows = []
        for worker, host in enumerate(self._hosts):
            with tf.device(f"{host}/device:CPU:0"):
                taken_batches, input_figures = self._take(batches[worker])
            own = range(worker * self._per_worker, (worker + 1) * self._per_worker)
            for number, index in enumerate(own):
                with tf.device(self._replicas[index].device):
                    rows.append(self._steps[index](taken_batches[number :: self._per_worker], input_figures))
        with tf.device(_HERE):
            return tf.stack(rows)

    def _taken(self, batches: tf.data.Iterator) -> tuple[_Batches, tf.Tensor]:
        """All batches of a worker's replicas for a step, in the order of its stream, and figures about them."""
        begin = fed = tf.timestamp()
        found = []
        for _ in range(self._per_worker * self._plan.push_every):
            (images, labels, end_record), worker, fed = taken(batches, after=fed)
            found.append((images, labels))
        return found, figures(worker, end_record, begin, fed)

    def _replica_step(self, replica: Replica) -> Callable[[_Batches, tf.Tensor], tf.Tensor]:
        """One replica's part of a step.

        A function of its own, since what one replica does must not wait for what another one does, as
        TensorFlow has it for operations with an effect in one function; their collectives would never meet.
        """
        plan = self._plan
        exchange = Ring(len(self._replicas), plan.wire_dtype, group=self._starts)

        def step(batches: _Batches, of_input: tf.Tensor) -> tf.Tensor:
            (images, labels), others = batches[0], batches[1:]
            more = None
            if others:
                stacked = [tf.stack(each) for each in zip(*others, strict=True)]
                no_wait = tf.constant(0.0, tf.float64)
                more = MoreBatches(len(others), lambda number: (*(each[number] for each in stacked), no_wait))
            done = train_step(
                replica.model, replica.optimizer, images, labels, plan.label_smoothing, exchange=exchange, more=more
            )
            worker, end_record, begin, fed = tf.unstack(of_input)
            num_images = tf.size(labels) * plan.push_every
            counts = done.loss, done.num_correct, num_images, worker, end_record
            return figures(*counts, fed - begin, done.updated - done.computed, done.updated - begin)

        return step

    def run(self, num_steps: int) -> StepBlock:
        began = time.monotonic()
        self._has_stepped = True
        table = np.concatenate([self._step(*self._batches).numpy() for _ in range(num_steps)])
        seconds = time.monotonic() - began
        return block_of(table, num_steps=num_steps, seconds=seconds, num_replicas=len(self._replicas))

    def measure_compute(self) -> float:
        """The average over the workers, for all batches of a replica's step."""
        plan = self._plan

        def measure(worker: int) -> float:
            replica = self._replicas[worker * self._per_worker]
            with tf.device(replica.device):
                graph = tf.function(lambda: compute_seconds(replica.model, plan.input.batch_size, plan.form))
                return float(graph.get_concrete_function()())

        return plan.push_every * float(np.mean(self._on_workers(measure)))

    def evaluate(self, shards: Sequence[str], ks: tuple[int, ...], should_stop: Callable[[], bool]) -> Counts | None:
        """Each worker counts a shard at a time, by the mean of all replicas' moving statistics."""
        self._average_once()
        if ks not in self._count:
            models = [replica.model for replica in self._replicas[:: self._per_worker]]
            self._count[ks] = [counting(model, self._plan, self._normalization, ks) for model in models]
        counts = self._count[ks]
        begun = [
            self._begun(number % len(counts), functools.partial(counts[number % len(counts)], tf.constant(shard)))
            for number, shard in enumerate(shards)
        ]
        while not all(future.done() for future in begun):
            if should_stop():  # a shard may take minutes
                return None
            time.sleep(_POLL_S)
        return sum((Counts.from_vector(np.asarray(future.result()), ks) for future in begun), Counts.zero(ks))

    def _average_once(self) -> None:
        """Averages the moving statistics that steps have made since the last time."""
        if self._has_stepped:
            self._average()
            self._has_stepped = False

    def snapshot(self) -> dict[str, np.ndarray]:
        self._average_once()
        return {**self._snapshot.take(), **self._normalization.variables()}

    @property
    def num_parameters(self) -> tuple[int, int]:
        model = self._model
        return _size(model.weights), _size(model.trainable_weights)

    @property
    def _model(self) -> keras.Model:
        return self._replicas[0].model

    @property
    def step_bytes(self) -> tuple[int, ...]:
        """Of each worker: what it sends to the next one of the ring and receives from the one before."""
        trained = self.num_parameters[1]
        return all_reduce_bytes(trained, self._plan.wire_dtype, len(self._hosts), len(self._replicas))

    @property
    def global_step(self) -> int:
        return int(self._replicas[0].optimizer.iterations.numpy())

    @property
    def learning_rate(self) -> float:
        return float(self._replicas[0].optimizer.learning_rate)


def _size(variables: Sequence[Any]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)
