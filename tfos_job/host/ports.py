"""Ports that this package listens on: any free port, or one of a range that a firewall admits.

A process *holds* a port by listening on it, so that no other process gets it. `release` frees the port for its user,
immediately before that user binds it.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Callable

from tfos_job.errors import ResourceError

PortRange = tuple[int, int]
BACKLOG = 128
_NEXT_PORT_ERRNOS = (errno.EADDRINUSE, errno.EACCES)


def listen(host: str, port_range: PortRange | None = None) -> socket.socket:
    """Returns a socket that listens on `host` alone.

    Args:
      host: address of one interface.
      port_range: first and last port to choose from; None: any port.

    Raises:
      ResourceError: no port of the range is free, or the host has no such address.
    """
    try:
        return first_free(host, port_range, lambda port: socket.create_server((host, port), backlog=BACKLOG))
    except OSError as e:
        raise ResourceError(
            f"cannot listen on a port: {e.strerror or e}", place=host, next_step="Check the address of this host"
        ) from e


def first_free(host: str, port_range: PortRange | None, create: Callable[[int], socket.socket]) -> socket.socket:
    """Returns the first socket of the range that can be made.

    The search begins at a random port of the range, so that jobs that start together on a host seldom try the same one.

    Args:
      host: address of this host, for the error.
      port_range: as in `listen`.
      create: makes a socket for a port, 0 for any; raises OSError.

    Raises:
      ResourceError: no port of the range is free.
      OSError: of `create`, for another reason.
    """
    low, high = port_range or (0, 0)
    first = random.randrange(low, high + 1)
    for port in [*range(first, high + 1), *range(low, first)]:
        try:
            return create(port)
        except OSError as e:
            if not port or e.errno not in _NEXT_PORT_ERRNOS:
                raise
    raise ResourceError(
        f"no port of {low}-{high} is free",
        place=f"host {host}, --port_range {low}-{high}",
        next_step="Give a wider --port_range: a job needs three ports on the driver's host, one for each node",
    )


def release(held: socket.socket) -> None:
    """Frees the port for another process, even if child processes have inherited the socket.

    An inherited copy keeps the port in use after `close`; `shutdown` ends the listening of all copies.
    """
    try:
        held.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # released before
    held.close()
