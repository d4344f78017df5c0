"""What a Spark task may use of its host, as Spark has assigned it. On executors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pyspark import TaskContext

from tfos_job.errors import ResourceError
from tfos_job.host import container, gpus
from tfos_job.scoring.task import Slot

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class SlotPolicy:
    """What the driver says of slots.

    Attributes:
      num_gpus: of each task.
      is_local: all tasks are on the driver's host, where Spark assigns no GPUs: they share the first ones.
    """

    num_gpus: int = 0
    is_local: bool = False


def run(function: Callable[[Task, Slot], Result], policy: SlotPolicy, task: Task) -> Result:
    """Calls `function` with the task and its slot; made a function of the task alone by `functools.partial`."""
    return function(task, slot_of(policy))


def slot_of(policy: SlotPolicy) -> Slot:
    """The slot of the running task.

    Raises:
      ResourceError: it has too few GPUs.
    """
    context = TaskContext.get()
    resources = context.resources() if context is not None else {}
    assigned = list(resources["gpu"].addresses) if "gpu" in resources else []
    if policy.is_local and not assigned:
        assigned = [str(number) for number in range(policy.num_gpus)]
    own = gpus.within(assigned, os.environ)[: policy.num_gpus]
    if len(own) < policy.num_gpus:
        where = f"container {container.container_id()}" if container.container_id() else "a task of Spark's"
        raise ResourceError(
            f"Spark has assigned {len(own)} GPUs to this task, and --num_gpus is {policy.num_gpus}",
            place=where,
            next_step=f"Give Spark spark.executor.resource.gpu.amount={policy.num_gpus}, "
            f"spark.task.resource.gpu.amount={policy.num_gpus} and spark.executor.resource.gpu.discoveryScript",
        )
    # A container on YARN is given cores, and TensorFlow would start as many threads as the host has.
    num_threads = 0 if policy.is_local or context is None else context.cpus()
    return Slot(gpus=own, num_threads=num_threads)
