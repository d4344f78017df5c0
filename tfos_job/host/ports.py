"""The ports that this package listens on: any free one, or one of a range that a firewall lets through.

A port is *held* by listening on it: nobody else can then have it, neither by name nor by chance. `release` gives it to
the one it was held for, at the last moment before that one binds it.
"""

from __future__ import annotations

import errno
import random
import socket

from tfos_job.errors import ResourceError

PortRange = tuple[int, int]
_BACKLOG = 128
_NEXT_PORT_ERRNOS = (errno.EADDRINUSE, errno.EACCES)


def listen(host: str, port_range: PortRange | None = None) -> socket.socket:
    """A socket that listens on `host` alone.

    Args:
      host: address of one interface.
      port_range: first and last port to choose from; None for any. The search begins somewhere within, so that jobs
        that start together on one host seldom meet.

    Raises:
      ResourceError: no port of the range is free, or the host has no such address.
    """
    low, high = port_range or (0, 0)
    first = random.randrange(low, high + 1)
    for port in [*range(first, high + 1), *range(low, first)]:
        try:
            return socket.create_server((host, port), backlog=_BACKLOG)
        except OSError as e:
            if port and e.errno in _NEXT_PORT_ERRNOS:
                continue
            raise ResourceError(
                f"cannot listen on a port: {e.strerror or e}", place=host, next_step="Check the address of this host"
            ) from e
    raise ResourceError(
        f"no port of {low}-{high} is free",
        place=f"host {host}, --port_range {low}-{high}",
        next_step="Give a wider --port_range: a job needs three ports on the driver's host, one for each node",
    )


def release(held: socket.socket) -> None:
    """Lets another process bind the port, whoever else has inherited this socket.

    A child that has a copy keeps a port in use after `close` here; `shutdown` ends the listening for all copies.
    """
    try:
        held.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # Released before.
    held.close()
