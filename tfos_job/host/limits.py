"""Time limits for calls that may never return: to a JVM, a network disk, or a kernel driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Value = TypeVar("Value")


def within(limit_s: float, call: Callable[[], Value], name: str) -> Value:
    """Makes a call and returns its result, or raises its exception.

    Args:
      limit_s: time limit.
      call: runs in a thread of its own, and continues there after the time limit.
      name: of the thread.

    Raises:
      TimeoutError: the call exceeded the limit.
    """
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            future.set_exception(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not future.done():
        raise TimeoutError(f"no answer for {limit_s:.0f} s")
    return future.result()
