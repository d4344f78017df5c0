"""A time server on the driver: executors measure their clock's offset and prove that they reach the driver.

The server sends the driver's Unix time as one big-endian double and closes the connection. The time is no secret, so it
needs no authentication. The server reads nothing from a client, so no client can block another one.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tfos_job.host import ports

Address = tuple[str, int]
_TIME = struct.Struct(">d")
_NUM_SAMPLES = 3
_TIMEOUT_S = 3.0


@contextmanager
def serve(host: str, port_range: tuple[int, int] | None) -> Iterator[Address]:
    """Serves the time at the address that it yields, during a `with` block. Runs on the driver.

    Raises:
      ResourceError: there is no free port.
    """
    server = ports.listen(host, port_range)

    def answer() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return  # closed
            with connection:
                try:
                    connection.sendall(_TIME.pack(time.time()))  # eight bytes fit into any buffer
                except OSError:
                    pass  # the client has closed the connection

    thread = threading.Thread(target=answer, name="doctor-clock", daemon=True)
    thread.start()
    try:
        yield server.getsockname()[:2]
    finally:
        server.shutdown(socket.SHUT_RDWR)  # wakes the thread, which `close` does not
        server.close()
        thread.join(_TIMEOUT_S)


def offset_s(driver: Address) -> float:
    """Returns the lead of this host's clock over the driver's, accurate to half of the shortest of three round trips.

    Raises:
      OSError: the driver cannot be reached.
    """
    samples: list[tuple[float, float]] = []
    for _ in range(_NUM_SAMPLES):
        asked_s, began_s = time.time(), time.monotonic()
        with socket.create_connection(driver, timeout=_TIMEOUT_S) as connection:
            data = b""
            while len(data) < _TIME.size:
                more = connection.recv(_TIME.size - len(data))
                if not more:
                    raise ConnectionError("closed before it told the time")
                data += more
        round_trip_s = time.monotonic() - began_s
        samples.append((round_trip_s, asked_s + round_trip_s / 2 - _TIME.unpack(data)[0]))
    return min(samples)[1]
