"""A way to a server that can be cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading


class Relay:
    """A way to the driver that resets the first connections after so many bytes of the caller, then carries all.

    `heard` is what callers have sent.
    """

    def __init__(self, address: tuple[str, int], cuts: list[int]) -> None:
        self._address, self._cuts = address, cuts
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._server.getsockname()
        self.num_calls = 0
        self.heard = bytearray()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self.num_calls += 1
                self._near, self._far = near, socket.create_connection(self._address)
                threading.Thread(target=self._copy, args=(self._far, near, None, bytearray()), daemon=True).start()
                limit = self._cuts.pop(0) if self._cuts else None
                threading.Thread(target=self._copy, args=(near, self._far, limit, self.heard), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, limit: int | None, heard: bytearray) -> None:
        with contextlib.suppress(OSError):
            while limit is None or limit > 0:
                data = source.recv(1 << 16 if limit is None else limit)
                if not data:
                    break
                heard += data
                target.sendall(data)
                limit = None if limit is None else limit - len(data)
        if limit is not None:
            self.cut(source, target)

    def cut(self, *ends: socket.socket) -> None:
        for sock in ends or (self._near, self._far):
            with contextlib.suppress(OSError):
                # close() alone would wait for the thread that reads.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RD)
            sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
