"""A process that loads something large once and answers many calls, one at a time; `calls.py` is for a single one.

It lives as long as the process that asks, or until nobody has asked for a while: then it gives its memory back, and the
next call starts another one. A working process sends a beat every second, and says when it gets on with its work. One
whose beats stop, or that beats and does not get on, is ended: its caller gets a `NodeDiedError`.

The process is a `host.child.Child`. It receives requests, and sends `beat`, `got_on` and, for each request, `answer`.
"""

from __future__ import annotations

import math
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any, NoReturn

from tfos_job.errors import JobError, NodeDiedError
from tfos_job.host import calls
from tfos_job.host.child import KILL_WAIT_S, Child, child_environment
from tfos_job.host.parent import BEAT_S, Parent

STALL_S = 900.0
"""Time limit for a step of the work, which takes seconds, or a minute where a slow disk loads a library or a model."""
IDLE_S = 60.0
"""Without a call: then the process gives its memory back."""
_PREFIX = "tfos_job-"


class Service:
    """The process, as its caller sees it. It is started by the first call.

    Args:
      module: its main program is `serve`.
      name: of the process, for errors.
      if_killed: next step for the error if the process was killed.
      visible_gpus: addresses, for CUDA_VISIBLE_DEVICES.
      variables: of its environment, beside those of `child_environment`.
      silence_s: time limit between two beats.
      stall_s: time limit between two signs that it gets on.
    """

    def __init__(
        self,
        module: str,
        *,
        name: str,
        if_killed: str,
        visible_gpus: str = "",
        variables: dict[str, str] | None = None,
        silence_s: float = calls.SILENCE_S,
        stall_s: float = STALL_S,
    ) -> None:
        self.visible_gpus = visible_gpus
        self._module = module
        self._name = name
        self._if_killed = if_killed
        self._variables = variables or {}
        self._silence_s = silence_s
        self._stall_s = stall_s
        self._child: Child | None = None
        self._output: IO[bytes] | None = None
        self._scratch = ""

    def call(self, request: Any) -> Any:
        """Makes a call.

        Args:
          request: JSON values.

        Returns:
          The result, as JSON values.

        Raises:
          JobError: the function raised it.
          NodeDiedError: the process was killed, fell silent or hung; the next call starts another one.
        """
        answer = self._ask(request)
        if answer is None:  # the idle process had just ended
            answer = self._ask(request)
        if answer is None:
            raise JobError(f"{self._name} ends at once", next_step="This is a bug")
        return answer.value()

    def close(self) -> None:
        """Ends the process."""
        child, self._child = self._child, None
        if child is not None:
            child.end()
            self._clean_up()

    def _ask(self, request: Any) -> calls.Answer | None:
        """The answer; None if the process has ended as it should."""
        child = self._child = self._child or self._start()
        try:
            child.tell(request)
            answer = self._listen(child)
        except BaseException:  # the next message would be the answer to this request
            self.close()
            raise
        if answer is None:
            self._bury(child)
        return answer

    def _listen(self, child: Child) -> calls.Answer | None:
        got_on_s = math.inf  # until it has started
        while True:
            try:
                message = child.hear(self._silence_s)
            except TimeoutError:
                raise self._hung(f"has given no sign of life for {self._silence_s:g} s") from None
            if message is None:
                return None
            if "answer" in message:
                return calls.Answer(**message["answer"])
            if "got_on" in message or got_on_s == math.inf:
                got_on_s = time.monotonic()
            elif time.monotonic() - got_on_s > self._stall_s:
                raise self._hung(f"has not got on with its work for {self._stall_s:g} s")

    def _hung(self, what: str) -> NodeDiedError:
        return NodeDiedError(
            f"{self._name} {what}", next_step="See what holds it up (`ps`, `dmesg`, `nvidia-smi`), and run again"
        )

    def _start(self) -> Child:
        self._scratch = tempfile.mkdtemp(prefix=_PREFIX)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        # TensorFlow writes the source of every traced function to the folder for temporary files.
        env = child_environment(self.visible_gpus) | {"TF_CPP_MIN_LOG_LEVEL": "2", "TMPDIR": self._scratch}
        return Child(self._module, name=self._name, env=env | self._variables, output=self._output)

    def _bury(self, child: Child) -> None:
        """Raises the cause of the process's death, unless it ended by itself."""
        assert self._output is not None
        code = child.end(grace_s=KILL_WAIT_S)
        self._child = None
        self._output.seek(0)
        said = self._output.read()
        self._clean_up()
        if code != 0:
            raise calls.died(self._name, code, said, self._if_killed)

    def _clean_up(self) -> None:
        if self._output is not None:
            self._output.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def serve(work: Callable[[Any, Callable[[], None]], Any], idle_s: float = IDLE_S) -> NoReturn:
    """Main program of the process: calls `work` with each request, and ends with its parent, or idle.

    Args:
      work: takes the request, and a function to call, as often as it likes, when it has got on with it; returns JSON
        values.
      idle_s: without a request, after which it ends.
    """
    parent = Parent()
    parent.beat()
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(parent, requests), daemon=True).start()
    got_on = _telling(parent)
    while True:
        try:
            request = requests.get(timeout=idle_s)
        except queue.Empty:
            _end(0)
        answer = calls.made(lambda request: work(request, got_on), request)
        parent.say(answer=vars(answer))


def _telling(parent: Parent) -> Callable[[], None]:
    """A function that tells the parent of progress, at most once a beat: it may be called for every record."""
    last_s = -math.inf

    def got_on() -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= BEAT_S:
            last_s = time.monotonic()
            parent.say(got_on=True)

    return got_on


def _receive(parent: Parent, requests: queue.SimpleQueue[Any]) -> None:
    while (request := parent.hear()) is not None:
        requests.put(request)
    _end(1)


def _end(code: int) -> NoReturn:
    """Ends this process at once: a regular end takes TensorFlow a while."""
    scratch = os.environ.get("TMPDIR", "")
    if os.path.basename(scratch).startswith(_PREFIX):  # its parent may be gone
        shutil.rmtree(scratch, ignore_errors=True)
    os._exit(code)
