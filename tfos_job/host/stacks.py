"""The Python stacks of processes on this host, for the report on an attempt that stands still.

A child process of ours writes those of all its threads to its log at a signal. The handler is faulthandler's: it runs
at once, in whatever thread the kernel chooses, and does not wait for Python's lock, which code in C may hold.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback

from tfos_job.host import proc

SIGNAL = signal.SIGUSR1
ANSWER_S = 2.0
"""Time limit for the stacks of a child: writing them takes milliseconds."""
MAX_BYTES = 32 << 10
"""Size of the longest text about the processes of a node."""
_POLL_S = 0.05
_MAX_READ_BYTES = 1 << 20
_CUT = "\n[…]\n"


def register() -> None:
    """Makes this process write its stacks to its standard error at `SIGNAL`, which would else end it."""
    faulthandler.register(SIGNAL, all_threads=True)


def of_this_process() -> str:
    """The stacks of this process's threads, the main thread's first, each with its innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] != main)
    parts = (f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames)
    return "\n".join(parts)


def of_child(pid: int, log: int, limit_s: float = ANSWER_S) -> str:
    """The stacks that a child writes to its log when it is asked; else a sentence that says why it writes none.

    Args:
      pid: of a process that has called `register`, or will.
      log: descriptor of the file that its standard error goes to; its position is neither used nor moved.
      limit_s: time for the answer. A process that is stopped, or waits in the kernel, gives none.
    """
    state = proc.state(pid)
    if state is None:
        return f"Process {pid} has ended."
    if proc.is_stopped(state):
        return f"Process {pid} is stopped: state {state}."
    if not proc.catches(pid, SIGNAL):
        return f"Process {pid} has not come so far as to tell its stacks: state {state}."
    begin = os.fstat(log).st_size
    try:
        os.kill(pid, SIGNAL)
    except ProcessLookupError:
        return f"Process {pid} has ended."
    end = _end_of_growth(log, begin, limit_s)
    if end == begin:
        return f"Process {pid} has told no stacks for {limit_s:g} s: state {proc.state(pid)}."
    return os.pread(log, min(end - begin, _MAX_READ_BYTES), begin).decode(errors="replace")


def _end_of_growth(log: int, begin: int, limit_s: float) -> int:
    """Waits until a file has grown and then stood still for a moment; returns its size."""
    deadline = time.monotonic() + limit_s
    size = begin
    while time.monotonic() < deadline:
        time.sleep(_POLL_S)
        before, size = size, os.fstat(log).st_size
        if before == size > begin:
            break
    return size


def cut(text: str, max_bytes: int) -> str:
    """The text, or its beginning and its end in so many bytes of UTF-8."""
    data = text.encode()
    if len(data) <= max_bytes:
        return text
    half = (max_bytes - len(_CUT.encode())) // 2
    return data[:half].decode(errors="ignore") + _CUT + data[-half:].decode(errors="ignore")
