"""What TFCluster runs on an executor: the supervisor of one TensorFlow process. Loads no TensorFlow itself.

It keeps the line to the driver, starts the process, and ends when the first of these happens:

* the driver says `Stop`: the process ends, the node says `Left`, the Spark task succeeds;
* the process ends, falls silent or cannot start: the node says `Failed` with the cause, the Spark task fails;
* the line to the driver breaks or falls silent, or Spark takes the parent process away: the process is killed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfos_job.cluster import control, failures
from tfos_job.cluster.node_process import Spec
from tfos_job.cluster.topology import CHIEF, INPUT_FILE, PS, WORKER, Task, WorkerInput
from tfos_job.errors import NodeDiedError, ResourceError

_POLL_S = 0.5
_STOP_S = 2.0
_LOG_FILE = "process.log"
SCRATCH_PREFIX = "tfos_job-"


@dataclass(frozen=True)
class NodeArgs:
    """What the driver gives every node through Spark.

    Attributes:
      driver: address of the driver's switchboard.
      key: of the control line.
      chief: `host:port` of the coordinator, which TFoS knows nothing of.
      inputs: what each worker reads, by worker index.
      num_gpus: GPUs a worker must see.
      local: all nodes share this host and Spark assigns no GPUs; worker i takes its own by number.
      start_timeout: seconds for the TensorFlow server to answer.
    """

    driver: tuple[str, int]
    key: bytes
    chief: str
    inputs: tuple[WorkerInput, ...]
    num_gpus: int
    local: bool
    start_timeout: int

    def __contains__(self, name: str) -> bool:
        """TFoS asks `'num_gpus' in tf_args` and would then allocate GPUs its own way: through Spark alone, please."""
        return False

    def __repr__(self) -> str:
        return "NodeArgs(…)"  # The key must not get into a log.


class NodeFailed(Exception):
    """Fails the Spark task; the driver already knows why through the control line."""


def main(args: NodeArgs, ctx: Any) -> None:
    """TFCluster's map function."""
    task = Task(ctx.job_name, ctx.task_index)
    host, port = ctx.cluster_spec[task.role][task.index].rsplit(":", 1)
    line = control.call_driver(
        args.driver, args.key, control.Hello(task.role, task.index, host, os.getpid(), int(port))
    )
    # Made for this task by launch.py. In a parameter server this process is a fork of the task's.
    scratch = multiprocessing.current_process()._config["tempdir"]  # type: ignore[attr-defined]
    work_dir = tempfile.mkdtemp(prefix=f"{task.role}-{task.index}-", dir=scratch)
    try:
        if task.role == WORKER:
            with open(os.path.join(work_dir, INPUT_FILE), "w", encoding="utf-8") as input_file:
                input_file.write(args.inputs[task.index].to_text())
        ctx.release_port()
        manager_pid = ctx.mgr._process.pid
        spec = Spec(
            cluster={**ctx.cluster_spec, CHIEF: [args.chief]},
            role=task.role,
            index=task.index,
            num_gpus=args.num_gpus if task.role == WORKER else 0,
            orphaned_pids=[manager_pid],
            scratch=scratch,
        )
        process = _spawn(spec, work_dir, _environment(task, args))
        _Supervisor(line, process, work_dir, manager_pid, args.start_timeout).run()
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
        line.close()
        if task.role == PS:
            # TFoS's foreground process waits for this word from the driver; the driver leaves it to us.
            ctx.mgr.get_queue("control").put(None)


def _environment(task: Task, args: NodeArgs) -> Mapping[str, str]:
    env = dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if task.role == PS or not args.num_gpus:
        env["CUDA_VISIBLE_DEVICES"] = ""
    elif args.local:
        first = task.index * args.num_gpus
        env["CUDA_VISIBLE_DEVICES"] = ",".join(str(first + i) for i in range(args.num_gpus))
    # Else TFoS has set it to the addresses that Spark assigned to this task.
    return env


def _spawn(spec: Spec, work_dir: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with open(os.path.join(work_dir, _LOG_FILE), "wb") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tfos_job.cluster.node_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            cwd=work_dir,
            env=env,
            start_new_session=True,  # A Ctrl-C at the terminal is the driver's to handle.
        )
    assert process.stdin is not None
    process.stdin.write(spec.to_line())
    process.stdin.flush()
    return process


class _Supervisor:
    """Waits for the first end of: the driver's patience, the process, the parent."""

    def __init__(
        self, line: control.Line, process: subprocess.Popen[bytes], work_dir: str, manager_pid: int, start_timeout: int
    ) -> None:
        self._line = line
        self._process = process
        self._work_dir = work_dir
        self._manager_pid = manager_pid
        self._parent = os.getppid()
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._ready = False
        self._deadline = time.monotonic() + start_timeout
        for target in (self._hear_driver, self._hear_process):
            threading.Thread(target=target, daemon=True).start()

    def _hear_driver(self) -> None:
        try:
            while not isinstance(self._line.receive(), control.Stop):
                pass
            self._events.put(("stop", None))
        except control.LineClosed as e:
            self._events.put(("driver lost", str(e)))

    def _hear_process(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            for kind, value in json.loads(text).items():
                self._events.put((kind, value))
        self._events.put(("exit", self._process.wait()))

    def run(self) -> None:
        try:
            while True:
                try:
                    kind, value = self._events.get(timeout=_POLL_S)
                except queue.Empty:
                    kind, value = "nothing", None
                if kind == "stop":
                    self._end_process()
                    self._say_goodbye()
                    return
                self._handle(kind, value)
                self._check_clock()
        finally:
            self._end_process()

    def _handle(self, kind: str, value: Any) -> None:
        if kind == "ready":
            self._ready = True
            self._line.send(control.Ready(value))
        elif kind == "failed":
            self._fail(failures.RAISED, value["cause"], value["exit_code"])
        elif kind == "exit":
            killed = value < 0
            cause = f"its TensorFlow process {self._process.pid} " + (
                f"was killed by {failures.signal_name(-value)}" if killed else f"ended with exit code {value}"
            )
            self._fail(failures.KILLED if killed else failures.RAISED, cause, NodeDiedError.exit_code)
        elif kind == "driver lost":
            raise NodeFailed(f"the line to the driver is gone: {value}")
        if kind in ("ready", "beat"):
            self._deadline = time.monotonic() + control.SILENCE_S

    def _check_clock(self) -> None:
        if os.getppid() != self._parent:
            os.kill(self._manager_pid, signal.SIGKILL)
            self._fail(failures.LOST, "Spark has ended the Python worker of this node", NodeDiedError.exit_code)
        if time.monotonic() > self._deadline:
            if self._ready:
                self._fail(
                    failures.LOST,
                    f"its TensorFlow process {self._process.pid} has been silent for {control.SILENCE_S:.0f} s",
                    NodeDiedError.exit_code,
                )
            self._fail(failures.RAISED, "its TensorFlow server did not start in time", ResourceError.exit_code)

    def _fail(self, kind: str, cause: str, exit_code: int) -> None:
        try:
            self._line.send(control.Failed(kind, cause, exit_code, detail=self._log_tail()))
        except control.LineClosed:
            pass  # The driver has gone meanwhile; the Spark task's own failure is all that is left to say.
        raise NodeFailed(cause)

    def _log_tail(self) -> str:
        with open(os.path.join(self._work_dir, _LOG_FILE), errors="replace") as log_file:
            return failures.log_tail(log_file)

    def _end_process(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"stop\n")
            self._process.stdin.flush()
            self._process.wait(_STOP_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()

    def _say_goodbye(self) -> None:
        try:
            self._line.send(control.Left())
        except control.LineClosed:
            pass  # The driver did not wait for the answer.
