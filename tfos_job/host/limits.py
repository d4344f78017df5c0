"""Calls that may never return: into a JVM, to a network disk, into a driver of the kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Value = TypeVar("Value")


def within(limit_s: float, call: Callable[[], Value], name: str) -> Value:
    """What a call returns, or raises.

    Args:
      limit_s: how long it may take.
      call: runs in a thread of its own, and goes on behind the scenes where it takes longer.
      name: of the thread.

    Raises:
      TimeoutError: it took longer.
    """
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            future.set_exception(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not future.done():
        raise TimeoutError(f"no answer for {limit_s:.0f} s")
    return future.result()
