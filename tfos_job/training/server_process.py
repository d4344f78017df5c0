"""The TensorFlow process of one node, the child of a supervisor: a `tf.distribute.Server` and nothing else.

It is a process of its own so that its death can be seen: TFoS's manager, forked from the Spark worker, would keep the
sockets of a dead worker open, and Spark would wait for ever. And it is spawned, not forked, because TensorFlow does not
survive a fork, and because Spark may use its Python worker again.

It is a `host.child.Child`: it is told its `ServerSpec`, then `stop`; if the supervisor is gone, its line ends. It says
`Ready`, `Notice` or `Failure` and, every second, `Beat` (`protocol/messages.py`).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable

from tfos_job.errors import JobError, ResourceError
from tfos_job.host import logs, ports, stacks
from tfos_job.host.imports import without
from tfos_job.host.parent import BEAT_S, Parent
from tfos_job.protocol import failures, messages
from tfos_job.protocol.messages import Beat, Notice, Ready, ToSupervisor
from tfos_job.protocol.server import STOP, ServerSpec
from tfos_job.protocol.topology import WORKER

_CLEANUP_S = 60.0


def start_server(spec: ServerSpec, warn: Callable[[str], None]) -> object:
    """Starts this task's gRPC server.

    Args:
      spec: of the task.
      warn: called with a text for the user.

    Raises:
      ResourceError: the port is taken, or TensorFlow sees fewer GPUs than the node was given.
    """
    with without("keras"):  # TensorFlow imports it if it is installed; graphs come from the coordinator, ready-made
        import tensorflow as tf

    config = tf.compat.v1.ConfigProto()
    # Worker 0 of a cluster has the list of those who take part in a collective.
    config.experimental.collective_group_leader = f"/job:{WORKER}/replica:0/task:0"
    num_seen = len(tf.config.list_physical_devices("GPU"))
    if spec.num_gpus > num_seen:
        fact = (
            f"TensorFlow sees {num_seen} of the {spec.num_gpus} GPUs that this node was given "
            f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')!r})"
        )
        if not spec.allow_cpu:
            raise ResourceError(
                fact,
                next_step="Check the driver with nvidia-smi and that TensorFlow was installed with CUDA, "
                "or give --allow_cpu",
            )
        warn(f"{fact}; it computes on the CPU, as --allow_cpu allows")
        config.device_count["GPU"] = 0
        config.device_count["CPU"] = spec.num_gpus  # as many replicas, so that a step is what it would have been
    if spec.held_fd is not None:
        ports.release(socket.socket(fileno=spec.held_fd))
    try:
        return tf.distribute.Server(
            tf.train.ClusterSpec(spec.cluster),
            job_name=spec.role,
            task_index=spec.index,
            protocol="grpc",
            config=config,
        )
    except tf.errors.UnknownError as e:  # gRPC's word for a port that is taken.
        raise ResourceError(f"cannot serve on {spec.cluster[spec.role][spec.index]}: {e.message}") from e


def main() -> None:
    supervisor = Parent()
    stacks.register()
    logs.text_to_stderr()
    orders = supervisor.hear()
    if orders is None:
        sys.exit(1)
    spec = ServerSpec(**orders)
    threading.Thread(target=_end_with, args=(supervisor, spec), daemon=True).start()
    try:
        server = start_server(spec, lambda text: _say(supervisor, Notice(text, is_warning=True)))
    except Exception as e:  # noqa: BLE001 - whatever it was, the supervisor must hear of it
        traceback.print_exc()
        error = e if isinstance(e, JobError) else JobError(f"{type(e).__name__}: {e}")
        _say(supervisor, failures.of_error(error))
        os._exit(error.exit_code)
    _say(supervisor, Ready(os.getpid()))
    while server:
        time.sleep(BEAT_S)
        _say(supervisor, Beat())


def _say(supervisor: Parent, message: ToSupervisor) -> None:
    if not supervisor.say(**messages.to_json(message)):
        # The supervisor is gone, and `_end_with` cleans up, which takes its time with many shards.
        time.sleep(_CLEANUP_S)
        os._exit(1)


def _end_with(supervisor: Parent, spec: ServerSpec) -> None:
    """Waits for `stop` or for the supervisor's death; a gRPC server has no other way to end."""
    if supervisor.hear() != STOP:
        for pid in spec.orphaned_pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for folder in spec.folders:
            shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
