"""Function calls in a Python process of its own, for callers that must not import TensorFlow.

The driver stays small and starts quickly, and Spark's Python worker, in which a TFCluster's node runs later, has no
TensorFlow. CUDA is hidden unless the call needs it. The process ends with its caller.

The process is a `host.child.Child`. It receives the request, sends `beat` every second and `answer` at the end.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from tfos_job.errors import JobError, NodeDiedError, exit_code_class
from tfos_job.host.child import KILL_WAIT_S, Child, child_environment, end_in_words
from tfos_job.host.parent import Parent

LAST_BYTES = 2000  # of a dead process's output, for the error
# No beat arrives while a slow disk loads a library, or while the host swaps.
SILENCE_S = 300.0
_INSTANT_S = 1e-3


@dataclass(frozen=True)
class Answer:
    """The end of a call: the returned value, or the parts of a `JobError`."""

    result: Any = None
    exit_code: int = 0
    fact: str = ""
    place: str = ""
    next_step: str = ""

    def value(self) -> Any:
        """The returned value; raises the `JobError`."""
        if self.exit_code:
            raise exit_code_class(self.exit_code)(self.fact, place=self.place, next_step=self.next_step)
        return self.result


def call(
    module: str,
    request: Any,
    *,
    name: str,
    if_killed: str,
    visible_gpus: str = "",
    silence_s: float = SILENCE_S,
    limit_s: float | None = None,
) -> Any:
    """Calls the function of a module, in a process `python -m module`.

    Args:
      module: its main program is `answer`.
      request: JSON values.
      name: of the process, for errors.
      if_killed: next step for the error if the process was killed.
      visible_gpus: addresses, for CUDA_VISIBLE_DEVICES.
      silence_s: time limit between two beats.
      limit_s: time limit of the call; None: unlimited.

    Returns:
      The result, as JSON values.

    Raises:
      JobError: the function raised it.
      NodeDiedError: the process was killed, or exceeded one of the time limits.
    """
    # TensorFlow writes the source of every traced function to the folder for temporary files.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, tempfile.TemporaryFile() as output:
        env = child_environment(visible_gpus) | {"TF_CPP_MIN_LOG_LEVEL": "2", "TMPDIR": scratch}
        child = Child(module, name=name, env=env, output=output)
        try:
            child.tell(request)
            answer = _listen(child, silence_s, limit_s)
            code = None if answer else child.end(grace_s=KILL_WAIT_S)
        finally:
            child.end()
        if answer is None:
            raise died(name, code, os.pread(output.fileno(), os.fstat(output.fileno()).st_size, 0), if_killed)
    return answer.value()


def _listen(child: Child, silence_s: float, limit_s: float | None) -> Answer | None:
    """Waits for the answer; None if the process ends without one."""
    began_s = time.monotonic()
    while True:
        left_s = silence_s if limit_s is None else min(silence_s, limit_s - (time.monotonic() - began_s))
        try:
            message = child.hear(max(left_s, _INSTANT_S))
        except TimeoutError:
            took_s = time.monotonic() - began_s
            fact = (
                f"{child.name} has not ended within {limit_s:g} s"
                if limit_s is not None and took_s >= limit_s
                else f"{child.name} has given no sign of life for {silence_s:g} s"
            )
            raise NodeDiedError(fact, next_step="See what holds it up (`ps`, `dmesg`), and run again") from None
        if message is None:
            return None
        if "answer" in message:
            return Answer(**message["answer"])


def died(name: str, code: int | None, said: bytes, if_killed: str) -> JobError:
    """The error of a process that has ended without an answer; `said` is its output."""
    if code is not None and code < 0:
        return NodeDiedError(f"{name} {end_in_words(code)}", next_step=if_killed)
    tail = said[-LAST_BYTES:].decode(errors="replace").strip()
    how = "has hung up" if code is None else end_in_words(code)
    return JobError(f"{name} {how}: {tail}", next_step="This is a bug")


def answer(work: Callable[[Any], Any]) -> NoReturn:
    """Main program of the process: calls `work` with the request, sends its result and ends the process."""
    parent = Parent()
    request = parent.hear()
    if request is None:
        os._exit(1)
    parent.beat()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    parent.say(answer=vars(made(work, request)))
    os._exit(0)  # a regular end takes TensorFlow a while


def made(work: Callable[[Any], Any], request: Any) -> Answer:
    """The end of a call of `work`; in the process."""
    try:
        return Answer(work(request))
    except JobError as error:
        return Answer(None, error.exit_code, error.fact, error.place, error.next_step)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a bug, which the caller reports
        fact = "".join(traceback.format_exception(error))[-LAST_BYTES:].strip()
        return Answer(None, JobError.exit_code, fact, next_step="This is a bug")


def _end_with(parent: Parent) -> None:
    parent.hear()
    os._exit(1)
