"""A node on an executor, as TFCluster runs it: a supervisor (`supervisor.py`) and its TensorFlow process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.errors import JobError, ResourceError
from tfos_job.host import container, gpus
from tfos_job.host.child import child_environment
from tfos_job.host.parent import go_on_without_parent
from tfos_job.host.ports import PortRange
from tfos_job.host.server_port import ServerPort
from tfos_job.nodes import account
from tfos_job.nodes.account import NodeFailed
from tfos_job.nodes.supervisor import Supervisor, SupervisorSpec
from tfos_job.protocol import failures, messages
from tfos_job.protocol.line import call_driver, own_address
from tfos_job.protocol.server import ServerSpec
from tfos_job.protocol.topology import EXECUTOR, INPUT_FILE, PS, WORKER, Task, WorkerInput

_FOREGROUND_S = 3.0  # TFoS looks for a message once a second
_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class NodeArgs:
    """The driver's arguments for every node, through Spark.

    Attributes:
      driver: address of the driver's switchboard.
      key: of the control line.
      attempt: the attempt's number.
      driver_host_tasks: `host:port` of the tasks on the driver's host, by role; TFoS knows nothing of them.
      inputs: the shards of each worker, by worker index.
      num_gpus: GPUs a worker must see.
      allow_cpu: a worker whose TensorFlow sees none goes on without.
      local: all nodes share this host.
      start_timeout: seconds for the TensorFlow server to answer.
      port_range: to listen in; None for any ports.
      require_isolation: fail where the kernel does not keep other hosts from the TensorFlow server.
      container_bytes: memory of an executor's container; 0 if nobody limits it.
    """

    driver: tuple[str, int]
    key: bytes
    attempt: int
    driver_host_tasks: Mapping[str, Sequence[str]]
    inputs: tuple[WorkerInput, ...]
    num_gpus: int
    allow_cpu: bool = False
    local: bool
    start_timeout: int
    port_range: PortRange | None = None
    require_isolation: bool = False
    container_bytes: int = 0

    def __contains__(self, name: str) -> bool:
        """False for `'num_gpus' in tf_args`, on which TFoS would allocate GPUs itself: Spark does that."""
        return False

    def __repr__(self) -> str:
        return "NodeArgs(…)"  # The key must not get into a log.


@dataclass(frozen=True)
class NodeContext:
    """The port and folders that `tfos_task.py` has made for the node of this Python worker; TFoS cannot pass them on.

    Attributes:
      held: the port that TFoS announces.
      folders: this node's own, removed at its end: the first for files, the last for Unix sockets.
    """

    held: ServerPort
    folders: tuple[str, ...]


# Set by tfos_task.py before TFoS calls `main`, in this process or, for a parameter server, in a fork of it.
context: NodeContext | None = None


def main(args: NodeArgs, ctx: Any) -> None:
    """TFCluster's map function."""
    assert context is not None
    go_on_without_parent()
    task = Task(ctx.job_name, ctx.task_index)
    host, port = ctx.cluster_spec[task.role][task.index].rsplit(":", 1)
    line = call_driver(args.driver, args.key, account.hello(task, host, int(port), args.attempt))
    parent = os.getppid()
    work_dir = tempfile.mkdtemp(prefix=f"{task.role}-{task.index}-", dir=context.folders[0])
    try:
        try:
            Supervisor(line, _supervisor_spec(task, args, ctx, work_dir)).run()
        except JobError as e:
            raise account.report(line, failures.of_error(e)) from e
        finally:
            shutil.rmtree(work_dir, ignore_errors=True)
            if task.role == PS:
                _end_foreground(ctx, parent)
        account.tell(line, messages.Left())
    finally:
        line.close()  # Only after the clean-up: the driver waits for this, then ends Spark and its processes.


def report_without_role(driver: tuple[str, int], key: bytes, attempt: int, error: JobError) -> NodeFailed:
    """Tells the driver of an error in a Spark task that TFoS has given no role yet; returns the exception to raise."""
    from pyspark import TaskContext

    task_context = TaskContext.get()
    index = task_context.partitionId() if task_context is not None else 0
    hello = messages.Hello(
        EXECUTOR, index, own_address(driver), os.getpid(), container=container.container_id(), attempt=attempt
    )
    with contextlib.closing(call_driver(driver, key, hello)) as line:
        return account.report(line, failures.of_error(error))


def _end_foreground(ctx: Any, parent: int) -> None:
    """Ends a parameter server's foreground process, which waits for a message of TFoS's driver.

    It cleans up then, unless Spark kills it first because another node has failed: then this function does it.
    """
    assert context is not None
    if os.getppid() == parent:
        ctx.mgr.get_queue("control").put(None)
    deadline = time.monotonic() + _FOREGROUND_S
    while os.getppid() == parent and any(map(os.path.exists, context.folders)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if os.getppid() != parent:
        with contextlib.suppress(ProcessLookupError):
            os.kill(ctx.mgr._process.pid, signal.SIGKILL)
        for folder in context.folders:
            shutil.rmtree(folder, ignore_errors=True)


def _supervisor_spec(task: Task, args: NodeArgs, ctx: Any, work_dir: str) -> SupervisorSpec:
    assert context is not None
    num_gpus = args.num_gpus if task.role == WORKER else 0
    manager = ctx.mgr._process.pid
    if task.role == WORKER:
        with open(os.path.join(work_dir, INPUT_FILE), "w", encoding="utf-8") as input_file:
            input_file.write(args.inputs[task.index].to_text())
    return SupervisorSpec(
        server=ServerSpec(
            cluster={
                role: list(addresses) for role, addresses in {**ctx.cluster_spec, **args.driver_host_tasks}.items()
            },
            role=task.role,
            index=task.index,
            num_gpus=num_gpus,
            allow_cpu=args.allow_cpu,
            orphaned_pids=[manager],
            folders=list(context.folders),
            held_fd=context.held.fd_to_release,
        ),
        attempt=args.attempt,
        work_dir=work_dir,
        env={
            **child_environment(",".join(_gpu_addresses(task, args)) if num_gpus else ""),
            **context.held.environment,
        },
        cache_plan=args.inputs[task.index].cache_plan if task.role == WORKER else None,
        start_timeout=args.start_timeout,
        parent="Spark's Python worker of this node",
        held=context.held,
        require_isolation=args.require_isolation,
        other_pids=(manager, os.getppid()) if task.role == PS else (manager,),  # a worker's parent is Spark's own
        container_bytes=args.container_bytes,
    )


def _gpu_addresses(task: Task, args: NodeArgs) -> Sequence[str]:
    """The worker's own GPUs: those that Spark has assigned to this task, never a guess from nvidia-smi.

    On one host, if Spark assigns none, worker i takes its own by number. Either way the user must allow them.

    Raises:
      ResourceError: there are too few.
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    resources = context.resources() if context is not None else {}
    assigned = list(resources["gpu"].addresses) if "gpu" in resources else []
    if args.local and not assigned:
        first = task.index * args.num_gpus
        assigned = [str(first + i) for i in range(args.num_gpus)]
    own = gpus.within(assigned, os.environ)
    if len(own) < len(assigned) and not args.allow_cpu:
        raise ResourceError(
            f"{gpus.VARIABLE}={os.environ[gpus.VARIABLE]} leaves this worker {len(own)} of {args.num_gpus} GPUs",
            next_step="Let it name more, or give fewer --num_gpus or --num_executors",
        )
    if len(assigned) < args.num_gpus:
        where = f", container {container.container_id()}" if container.container_id() else ""
        raise ResourceError(
            f"Spark has assigned {len(assigned)} GPUs to this worker, and --num_gpus is {args.num_gpus}",
            place=f"{task} on host {own_address(args.driver)}{where}",
            next_step=f"Give Spark spark.executor.resource.gpu.amount={args.num_gpus}, "
            f"spark.task.resource.gpu.amount={args.num_gpus} and spark.executor.resource.gpu.discoveryScript",
        )
    return own[: args.num_gpus]
