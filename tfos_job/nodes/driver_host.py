"""Parameter servers on the driver's host: each is a supervisor, a child of the driver, and its TensorFlow process.

To the driver such a node is like one on an executor: it calls, is ready, leaves or fails, all through the control line.
`ParameterServer` is used in the driver; `main` and below run in the child, which is spawned (exec, never fork).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tfos_job.host import container, logs, server_port, stacks
from tfos_job.host.child import Child, child_environment
from tfos_job.host.parent import Parent
from tfos_job.host.server_port import ServerPort
from tfos_job.nodes import account
from tfos_job.nodes.account import NodeFailed
from tfos_job.nodes.supervisor import Supervisor, SupervisorSpec
from tfos_job.protocol import messages
from tfos_job.protocol.frames import LineClosed
from tfos_job.protocol.line import call_driver
from tfos_job.protocol.server import ServerSpec
from tfos_job.protocol.topology import PS, Task


@dataclass(frozen=True, kw_only=True)
class _Order:
    """The driver's orders for the child.

    Attributes:
      driver: address of the driver's switchboard.
      key: of the control line, hex.
      attempt: the attempt's number.
      driver_host_tasks: `host:port` of all tasks on the driver's host, by role.
      index: the parameter server's own.
      start_timeout: seconds for the TensorFlow server to answer.
      folder: the node's own, removed at its end.
      held_fd: descriptor of the socket that holds its port.
      why_open: of its `ServerPort`.
      require_isolation: as `NodeArgs` has it.
    """

    driver: Sequence[object]
    key: str
    attempt: int
    driver_host_tasks: Mapping[str, Sequence[str]]
    index: int
    start_timeout: int
    folder: str
    held_fd: int
    why_open: str
    require_isolation: bool


class ParameterServer:
    """The driver's handle of one parameter server."""

    def __init__(
        self,
        index: int,
        held: ServerPort,
        *,
        driver: tuple[str, int],
        key: bytes,
        attempt: int,
        driver_host_tasks: Mapping[str, Sequence[str]],
        start_timeout: int,
        require_isolation: bool = False,
    ) -> None:
        """Spawns it; `held` has its port, which is the one that `driver_host_tasks` names."""
        self.task = Task(PS, index)
        self._folder = container.make_scratch(attempt)
        order = _Order(
            driver=driver,
            key=key.hex(),
            attempt=attempt,
            driver_host_tasks=driver_host_tasks,
            index=index,
            start_timeout=start_timeout,
            folder=self._folder,
            held_fd=held.fd_to_keep,
            why_open=held.why_open,
            require_isolation=require_isolation,
        )
        self.process = Child(
            "tfos_job.nodes.driver_host",
            name=f"the supervisor of {self.task}",
            env=child_environment(""),
            pass_fds=(held.fd_to_keep,),
        )
        self.process.tell(asdict(order))

    def close(self, timeout_s: float) -> None:
        """Waits until it has ended as told through the line, then kills it; its TensorFlow process ends with it."""
        self.process.end(timeout_s)
        shutil.rmtree(self._folder, ignore_errors=True)


def main() -> None:
    stacks.register()
    logs.text_to_stderr()
    orders = Parent().hear()
    if orders is None:
        sys.exit(1)  # The driver has gone before its orders came.
    order = _Order(**orders)
    host, port = order.driver
    own_host, own_port = order.driver_host_tasks[PS][order.index].rsplit(":", 1)
    task = Task(PS, order.index)
    held = server_port.inherited(order.held_fd, own_host, order.why_open)
    try:
        hello = account.hello(task, own_host, int(own_port), order.attempt)
        line = call_driver((str(host), int(str(port))), bytes.fromhex(order.key), hello)
        Supervisor(line, _supervisor_spec(task, order, held)).run()
        account.tell(line, messages.Left())
    except (NodeFailed, LineClosed, OSError) as e:
        sys.exit(f"{task}: {e}" if not isinstance(e, NodeFailed) else 1)
    finally:
        shutil.rmtree(order.folder, ignore_errors=True)


def _supervisor_spec(task: Task, order: _Order, held: ServerPort) -> SupervisorSpec:
    return SupervisorSpec(
        server=ServerSpec(
            # The workers are not known yet; the coordinator tells this server of them when it connects.
            cluster={role: list(addresses) for role, addresses in order.driver_host_tasks.items()},
            role=task.role,
            index=task.index,
            num_gpus=0,
            orphaned_pids=[],
            folders=[order.folder],
            held_fd=held.fd_to_release,
        ),
        attempt=order.attempt,
        work_dir=tempfile.mkdtemp(prefix=f"{task.role}-{task.index}-", dir=order.folder),
        env={**child_environment(""), **held.environment},
        cache_plan=None,
        start_timeout=order.start_timeout,
        parent="the driver",
        held=held,
        require_isolation=order.require_isolation,
    )


if __name__ == "__main__":
    main()
