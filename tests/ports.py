"""Ports for tests. None is fixed: another run on this machine may have it."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the range from which the system takes those of outgoing connections.
_LOWEST, _HIGHEST = 15000, 32000
_TRIES = 200


def free_port_range(count: int) -> tuple[int, int]:
    """The first and the last of `count` consecutive ports that are free now."""
    for first in random.sample(range(_LOWEST, _HIGHEST - count), _TRIES):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("", port)))
            return first, first + count - 1
    raise AssertionError(f"no {count} consecutive ports are free between {_LOWEST} and {_HIGHEST}")
