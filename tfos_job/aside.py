"""Work with TensorFlow in a Python process of its own, asked for by one that must not import it, and ended with it.

The driver stays small and quick to start, and Spark's Python worker, which a TFCluster's node is to run in later,
carries no TensorFlow. CUDA is hidden: who asks holds no GPU.

stdin: one line of JSON, then nothing until whoever gave it has gone. stdout: one line of JSON (`_Answer`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from tfos_job.errors import JobError, NodeDiedError, exit_code_class

_LAST_BYTES = 2000  # of what a process has said that has died


@dataclass(frozen=True)
class _Answer:
    """How it went: the parts of a `JobError`, or an exit code of 0."""

    exit_code: int = 0
    fact: str = ""
    place: str = ""
    next_step: str = ""


def process_environment(cuda_visible_devices: str) -> dict[str, str]:
    """This process's environment, for a TensorFlow process that sees these GPUs alone."""
    env = dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    env["CUDA_VISIBLE_DEVICES"] = cuda_visible_devices
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    return env


def ask(module: str, request: Any, *, name: str, if_killed: str) -> None:
    """Has `python -m module` do something.

    Args:
      module: its `main` is `answer`.
      request: JSON values.
      name: of the process, for errors.
      if_killed: what to do where it was killed.

    Raises:
      JobError: what the work raised.
      NodeDiedError: the process was killed.
    """
    env = {**process_environment(""), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-m", module]
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write((json.dumps(request) + "\n").encode())
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                process.wait()
        finally:
            process.kill()  # it has said all that it has to say, or nobody listens any more
        stderr.seek(0)
        said = stderr.read()
    if not line:
        raise _died(name, process.returncode, said, if_killed)
    found = _Answer(**json.loads(line))
    if found.exit_code:
        raise exit_code_class(found.exit_code)(found.fact, place=found.place, next_step=found.next_step)


def _died(name: str, code: int, said: bytes, if_killed: str) -> JobError:
    if code < 0:
        return NodeDiedError(f"{name} was killed by {signal.Signals(-code).name}", next_step=if_killed)
    tail = said[-_LAST_BYTES:].decode(errors="replace").strip()
    return JobError(f"{name} ended with {code}: {tail}", next_step="This is a bug")


def answer(work: Callable[[Any], None]) -> NoReturn:
    """The other side: does the work with the request, and ends the process."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(request)
        said = _Answer()
    except JobError as error:
        said = _Answer(error.exit_code, error.fact, error.place, error.next_step)
    except Exception as error:  # noqa: BLE001 - a bug, and whoever asked must hear of it
        fact = "".join(traceback.format_exception(error))[-_LAST_BYTES:].strip()
        said = _Answer(JobError.exit_code, fact, next_step="This is a bug")
    sys.stdout.write(json.dumps(vars(said)) + "\n")
    sys.stdout.flush()
    os._exit(0)  # TensorFlow's own end takes a while


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)
