"""The replicas of an all-reduce training: where they are, their variables, and how their gradients become one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfos_job.config import WIRE_BYTES
from tfos_job.errors import ResourceError
from tfos_job.networks.variables import all_variables
from tfos_job.protocol.topology import WORKER
from tfos_job.run.network_variables import RANDOM_STATE
from tfos_job.run.plan import TrainPlan
from tfos_job.training.exchange import packed, unpacked
from tfos_job.training.optimizer import FusedAdam
from tfos_job.training.placed_network import begun, give_first_values

_MIN_ALONE_BYTES = 1 << 20  # a gradient of fewer goes with others of its kind, since each message has a price


@dataclass(frozen=True)
class Replica:
    """All variables of a training on one device; `index` is among all replicas."""

    index: int
    device: str
    model: keras.Model
    optimizer: FusedAdam


def replicas_of(devices: Sequence[str]) -> list[str]:
    """The devices that have a replica, worker by worker: all GPUs, or all CPUs where no worker has a GPU.

    Args:
      devices: names of all devices of the cluster, in TensorFlow's order.

    Raises:
      ResourceError: the workers have not as many of the same kind: each would wait for what the others do not do.
    """
    specs = [spec for spec in map(tf.DeviceSpec.from_string, devices) if spec.job == WORKER]
    tasks = sorted({spec.task for spec in specs})
    numbers = {
        kind: [sum(spec.task == task and spec.device_type == kind for spec in specs) for task in tasks]
        for kind in ("GPU", "CPU")
    }
    kind = "GPU" if any(numbers["GPU"]) else "CPU"
    if len(set(numbers[kind])) > 1:
        found = ", ".join(f"{WORKER}:{task} has {number}" for task, number in zip(tasks, numbers[kind], strict=True))
        raise ResourceError(
            f"all-reduce needs as many {kind}s on each worker: {found}",
            next_step="Check the GPUs of the other hosts with `tfos-job doctor`, or train with parameter servers",
        )
    own = [spec for spec in specs if spec.device_type == kind]
    return [spec.to_string() for spec in sorted(own, key=lambda spec: (spec.task, spec.device_index))]


def built(devices: Sequence[str], plan: TrainPlan, variables: Mapping[str, np.ndarray] | None) -> list[Replica]:
    """Builds `plan`'s network on each device and gives all of them the same first values.

    Args:
      devices: of `replicas_of`.
      plan: of the training.
      variables: a checkpoint's; None for fresh ones.

    Raises:
      JobError: of the network or of the weights that it begins with.
    """
    replicas = []
    for index, device in enumerate(devices):
        with tf.device(device):
            replicas.append(Replica(index, device, *begun(plan)))
    give_first_values(replicas[0].model, replicas[0].optimizer, plan, variables)
    _copied_to_all(replicas)
    return replicas


def _variables_of(replica: Replica) -> list[keras.Variable]:
    return list(all_variables(replica.model, replica.optimizer).values())


def _copied_to_all(replicas: Sequence[Replica]) -> None:
    """Gives each replica the variables of the first, over the network between them, and random numbers of its own."""
    first = _variables_of(replicas[0])

    @tf.function
    def copy() -> None:
        values = [variable.value.read_value() for variable in first]
        for replica in replicas[1:]:
            with tf.device(replica.device):
                for variable, value in zip(_variables_of(replica), values, strict=True):
                    if variable.path.endswith(f"/{RANDOM_STATE}"):
                        # [seed, counter]: a checkpoint has the first replica's, and the others follow from it.
                        value += tf.constant([replica.index, 0], value.dtype)
                    variable.value.assign(value, read_value=False)

    if len(replicas) > 1:
        copy()


def statistics_averaged(replicas: Sequence[Replica]) -> Callable[[], None]:
    """Gives each replica the mean of all replicas' moving statistics.

    What a training makes of them does not depend on how often that is done: they do not enter a step, and their mean
    moves on in the same way from their mean as from what they are. What is alike on all of them, such as a layer that
    is not trained, stays as it is to the bit: the mean of three equal numbers may be rounded to another one.
    """
    variables = zip(*(replica.model.non_trainable_variables for replica in replicas), strict=True)
    kept = [each for each in variables if tf.as_dtype(each[0].dtype).is_floating]

    def average() -> None:
        for each in kept:
            with tf.device(each[0].value.device):
                first, *others = values = [variable.value.read_value() for variable in each]
                is_alike = functools.reduce(tf.logical_and, [tf.equal(first, other) for other in others])
                mean = tf.where(is_alike, first, tf.add_n(values) / len(values))
            for variable in each:
                with tf.device(variable.value.device):
                    variable.value.assign(mean, read_value=False)

    return tf.function(average) if len(replicas) > 1 and kept else lambda: None


@dataclass(frozen=True)
class Ring:
    """The `Exchange` of a replica: its own variables, and the mean of all replicas' gradients.

    Attributes:
      num_replicas: all of them.
      wire_dtype: a key of `config.WIRE_BYTES`: as what gradients are added up on their way around the ring.
      group: a number that all replicas of a network share, and no other network of the cluster has had.
    """

    num_replicas: int
    wire_dtype: str
    group: int

    def pulled(self, trained: Sequence[keras.Variable], others: Sequence[keras.Variable]) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(variable.value) for variable in (*trained, *others)]

    def pushed(self, gradients: Sequence[tf.Tensor], trained: Sequence[keras.Variable]) -> list[tf.Tensor]:
        if self.num_replicas == 1:
            return list(gradients)
        size = WIRE_BYTES[self.wire_dtype]
        found: dict[int, tf.Tensor] = {}
        indices = range(len(gradients))
        alone = [index for index in indices if gradients[index].shape.num_elements() * size >= _MIN_ALONE_BYTES]
        together = [index for index in indices if index not in alone]
        for key, fellows in enumerate([together, *([index] for index in alone)]):
            if fellows:
                own = [gradients[index] for index in fellows]
                found.update(zip(fellows, unpacked(self._mean(packed(own, self.wire_dtype), key), own), strict=True))
        return [found[index] for index in indices]

    def put(self, states: Sequence[tf.Tensor], others: Sequence[keras.Variable]) -> list[tf.Tensor]:
        return list(states)

    def _mean(self, values: tf.Tensor, key: int) -> tf.Tensor:
        summed = tf.raw_ops.CollectiveReduce(
            input=values,
            group_size=self.num_replicas,
            group_key=self.group,
            instance_key=key,
            merge_op="Add",
            final_op="Id",  # a division there would round once more
            subdiv_offsets=[0],
            communication_hint="ring",
        )
        return tf.cast(summed, tf.float32) / self.num_replicas
