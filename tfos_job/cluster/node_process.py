"""The TensorFlow process of one node, a child of `node` on an executor: a `tf.distribute.Server` and nothing else.

It is a process of its own so that its death can be seen: TFoS's manager, forked from the Spark worker, would keep the
sockets of a dead worker open, and Spark would wait for ever. And it is spawned, not forked, because TensorFlow does not
survive a fork, and because Spark may use its Python worker again.

stdin: one line of JSON (`Spec`), then `stop`, or the end of the stream, which means that the supervisor is gone.
stdout: one line of JSON for `ready`, `failed` and, every second, `beat`. stderr: TensorFlow's own words.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from typing import IO

from tfos_job.errors import JobError, ResourceError

BEAT_S = 1.0


@dataclass(frozen=True)
class Spec:
    """What the supervisor tells its process: the cluster, its place in it, and what to take along if orphaned."""

    cluster: dict[str, list[str]]
    role: str
    index: int
    num_gpus: int
    orphaned_pids: list[int]
    scratch: str

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def start_server(spec: Spec) -> object:
    """Starts this task's gRPC server.

    Raises:
      ResourceError: the port is taken, or TensorFlow sees fewer GPUs than the node was given.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if spec.num_gpus > len(gpus):
        raise ResourceError(
            f"TensorFlow sees {len(gpus)} of the {spec.num_gpus} GPUs that this node was given "
            f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')!r})",
            next_step="Check the driver with nvidia-smi and that TensorFlow was installed with CUDA",
        )
    try:
        return tf.distribute.Server(
            tf.train.ClusterSpec(spec.cluster), job_name=spec.role, task_index=spec.index, protocol="grpc"
        )
    except tf.errors.UnknownError as e:  # gRPC's word for a port that is taken.
        raise ResourceError(f"cannot serve on {spec.cluster[spec.role][spec.index]}: {e.message}") from e


def main() -> None:
    # TensorFlow's libraries may print: keep the channel to the supervisor for ourselves.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    spec = Spec(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_supervisor, args=(spec,), daemon=True).start()
    try:
        server = start_server(spec)
    except Exception as e:  # noqa: BLE001 - whatever it was, the supervisor must hear of it
        traceback.print_exc()
        exit_code = e.exit_code if isinstance(e, JobError) else JobError.exit_code
        _say(out, failed={"cause": f"{type(e).__name__}: {e}", "exit_code": exit_code})
        os._exit(exit_code)
    _say(out, ready=os.getpid())
    while server:
        time.sleep(BEAT_S)
        _say(out, beat=True)


def _say(out: IO[str], **message: object) -> None:
    try:
        print(json.dumps(message), file=out, flush=True)
    except BrokenPipeError:
        os._exit(1)  # The supervisor is gone; `_end_with_supervisor` is cleaning up or has done so.


def _end_with_supervisor(spec: Spec) -> None:
    """Waits for `stop` or for the supervisor's death; a gRPC server has no other way to end."""
    if sys.stdin.readline().strip() != "stop":
        for pid in spec.orphaned_pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(spec.scratch, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
