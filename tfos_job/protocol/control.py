"""The authenticated line between the driver and each of its processes (driver, executor and coordinator alike).

A line is one TCP connection that carries JSON frames. The 32-byte key reaches the nodes inside Spark's own task and the
coordinator through its stdin, never through a log or a command line. Each side contributes a nonce to the key of the
session, and each frame's HMAC-SHA256 covers its direction and number, so that a frame can be neither forged, replayed
nor turned around. JSON, never pickle: what an unauthenticated peer sends is at most thrown away.

Both ends send a beat every second. An end that reads nothing for `SILENCE_S` takes the other for dead, a closed
connection says so at once; either way the reader learns it as an event, not as an exception in some thread.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import logging
import queue
import secrets
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tfos_job.host import ports
from tfos_job.host.ports import PortRange
from tfos_job.protocol.topology import Task

log = logging.getLogger(__name__)

KEY_BYTES = 32
BEAT_S = 1.0
SILENCE_S = 20.0
MAX_FRAME_BYTES = 16 << 20
HANDSHAKE_TIMEOUT_S = 10.0
_LENGTH = struct.Struct(">I")
_MAC_BYTES = 32


class LineClosed(Exception):
    """The other end is gone, silent, or not who it claims to be."""


# Messages: every one a named thing. A node or the coordinator to the driver:


@dataclass(frozen=True)
class Hello:
    """The first message of every line: who is calling, from where.

    `container` is YARN's name for the place, and `log_url` its page with the caller's log; both empty elsewhere.
    """

    role: str
    index: int
    host: str
    pid: int
    port: int = 0
    container: str = ""
    log_url: str = ""


@dataclass(frozen=True)
class Ready:
    """The TensorFlow server of this node answers, and what it is to read lies on its disk."""

    pid: int


@dataclass(frozen=True)
class Notice:
    """Something that the user should know, and that is no failure. `is_warning` tells how loudly."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Failed:
    """What went wrong here, in the words of errors.py. `kind` is one of failures.KINDS."""

    kind: str
    cause: str
    exit_code: int
    place: str = ""
    next_step: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Left:
    """This node has stopped as told to."""


@dataclass(frozen=True)
class Progress:
    """A block of steps is done. `bound` is `StepProfile.to_json()` of all blocks so far."""

    step: int
    loss: float
    top_1: float
    learning_rate: float
    images_per_second: float
    input_wait_fraction: float
    bound: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluating:
    """An evaluation is under way, and this many examples of it are counted."""

    step: int
    num_examples: int


@dataclass(frozen=True)
class Searching:
    """A damaged record is being looked for, in this shard now."""

    shard: str


@dataclass(frozen=True)
class CheckpointBegun:
    """A checkpoint of this step is on its way: its variables are there, and no node is needed for it any more."""

    step: int


@dataclass(frozen=True)
class CheckpointPublished:
    """A checkpoint lies at `path`, whole, so many seconds after the block of steps that it is of."""

    step: int
    path: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Evaluated:
    """An evaluation within training is done and on disk."""

    step: int
    split_name: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Finished:
    """The coordinator's last word: where training stopped, and whether it was asked to."""

    step: int
    interrupted: bool
    seconds: float
    images: int
    records_read: list[int] = field(default_factory=list)
    bound: dict[str, Any] = field(default_factory=dict)


# The driver to a node or the coordinator:


@dataclass(frozen=True)
class Stop:
    """End in good order: a node its server, the coordinator after a last checkpoint."""


@dataclass(frozen=True)
class _Beat:
    pass


Message = Any
_MESSAGES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Hello,
        Ready,
        Notice,
        Failed,
        Left,
        Progress,
        Searching,
        CheckpointBegun,
        CheckpointPublished,
        Evaluating,
        Evaluated,
        Finished,
        Stop,
        _Beat,
    )
}


def encode(message: Message) -> bytes:
    return json.dumps([type(message).__name__, dataclasses.asdict(message)], separators=(",", ":")).encode()


def decode(data: bytes) -> Message:
    """Raises LineClosed for anything that is not one of this module's messages."""
    try:
        name, values = json.loads(data)
        return _MESSAGES[name](**values)
    except (ValueError, KeyError, TypeError) as e:
        raise LineClosed(f"a message that is none of this version's: {data[:80]!r}") from e


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def read_exactly(sock: socket.socket, num_bytes: int, deadline: float | None = None) -> bytes:
    """Reads from a socket until all is there.

    Args:
      sock: its own timeout holds for each part that arrives.
      num_bytes: how many.
      deadline: of `time.monotonic`, for the whole: a byte now and then does not put it off.

    Raises:
      LineClosed: the end of the stream.
      TimeoutError: one of the two times is over.
    """
    parts = bytearray()
    while len(parts) < num_bytes:
        if deadline is not None:
            sock.settimeout(max(deadline - time.monotonic(), 1e-3))
        chunk = sock.recv(min(num_bytes - len(parts), 1 << 16))
        if not chunk:
            raise LineClosed("connection closed")
        parts += chunk
    return bytes(parts)


def seal(key: bytes, context: bytes, payload: bytes) -> bytes:
    """One frame: length, HMAC over context and payload, payload."""
    return _LENGTH.pack(len(payload)) + hmac.digest(key, context + payload, "sha256") + payload


def unseal(key: bytes, context: bytes, sock: socket.socket, limit_s: float | None = None) -> bytes:
    """Reads one frame; raises LineClosed unless its HMAC is right. Nothing is parsed before that.

    `limit_s` is for the whole frame, and lasts on as the socket's timeout.
    """
    deadline = None if limit_s is None else time.monotonic() + limit_s
    (length,) = _LENGTH.unpack(read_exactly(sock, _LENGTH.size, deadline))
    if length > MAX_FRAME_BYTES:
        raise LineClosed(f"a frame of {length} bytes")
    mac = read_exactly(sock, _MAC_BYTES, deadline)
    payload = read_exactly(sock, length, deadline)
    if not hmac.compare_digest(mac, hmac.digest(key, context + payload, "sha256")):
        raise LineClosed("a frame with a wrong signature")
    return payload


class Line:
    """One end of an authenticated connection. `send` may be called from any thread, `receive` from one."""

    def __init__(self, sock: socket.socket, key: bytes, *, is_driver: bool) -> None:
        self._sock = sock
        sock.settimeout(HANDSHAKE_TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mine = secrets.token_bytes(16)
        sock.sendall(mine)
        theirs = read_exactly(sock, len(mine), time.monotonic() + HANDSHAKE_TIMEOUT_S)
        self._key = hmac.digest(key, mine + theirs if is_driver else theirs + mine, "sha256")
        self._out, self._in = (b"d", b"n") if is_driver else (b"n", b"d")
        self._sent = self._received = 0
        self._send_lock = threading.Lock()
        self._closed = threading.Event()
        sock.settimeout(SILENCE_S)

    def start_beating(self) -> None:
        threading.Thread(target=self._beat, name="control-beat", daemon=True).start()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            try:
                self.send(_Beat())
            except LineClosed:
                return

    def send(self, message: Message) -> None:
        """Raises LineClosed where the other end is gone."""
        with self._send_lock:
            try:
                context = self._out + self._sent.to_bytes(8, "big")
                self._sock.sendall(seal(self._key, context, encode(message)))
            except OSError as e:
                raise LineClosed(str(e) or type(e).__name__) from e
            self._sent += 1

    def receive(self, limit_s: float | None = None) -> Message:
        """The next message; beats are swallowed. Raises LineClosed, also after `SILENCE_S` without a word.

        `limit_s` is for a peer that has not proved who it is: the whole of its first frame must be there by then.
        """
        while True:
            try:
                payload = unseal(self._key, self._in + self._received.to_bytes(8, "big"), self._sock, limit_s)
            except TimeoutError as e:
                raise LineClosed(f"silent for {limit_s or SILENCE_S:.0f} s") from e
            except OSError as e:
                raise LineClosed(str(e) or type(e).__name__) from e
            if limit_s is not None:
                self._sock.settimeout(SILENCE_S)
            self._received += 1
            message = decode(payload)
            if not isinstance(message, _Beat):
                return message

    def close(self) -> None:
        self._closed.set()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The other end was faster.
        self._sock.close()


def call_driver(address: tuple[str, int], key: bytes, hello: Hello) -> Line:
    """Opens a node's line to the driver and says hello."""
    line = Line(socket.create_connection(address, timeout=HANDSHAKE_TIMEOUT_S), key, is_driver=False)
    line.send(hello)
    line.start_beating()
    return line


def own_address(peer: tuple[str, int]) -> str:
    """The address of the interface that leads to `peer`. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0])


# What the driver learns, as events:


@dataclass(frozen=True)
class Joined:
    """A process has called and proved that it holds the key."""

    task: Task
    hello: Hello


@dataclass(frozen=True)
class Said:
    """A message has come."""

    task: Task
    message: Message


@dataclass(frozen=True)
class Lost:
    """A line has ended; expected after `Left` or `Finished`, a failure otherwise."""

    task: Task
    reason: str


class Switchboard:
    """The driver's end of all lines: accepts calls, and puts what happens into one queue of events."""

    def __init__(self, host: str, key: bytes, port_range: PortRange | None = None) -> None:
        """Listens on `host` alone (not on every interface), on a free port.

        Raises:
          ResourceError: there is none.
        """
        self.events: queue.Queue[Any] = queue.Queue()
        self._key = key
        self._lines: dict[Task, Line] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._server = ports.listen(host, port_range)
        self.address: tuple[str, int] = self._server.getsockname()[:2]
        threading.Thread(target=self._accept, name="control-accept", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._server.accept()
            except OSError as e:
                if self._closing:
                    return
                log.warning("Cannot accept a connection: %s", e)  # Too many open files: that may pass.
                time.sleep(BEAT_S)
                continue
            threading.Thread(target=self._serve, args=(sock, peer), name=f"control-{peer}", daemon=True).start()

    def _serve(self, sock: socket.socket, peer: Any) -> None:
        try:
            line = Line(sock, self._key, is_driver=True)
            hello = line.receive(HANDSHAKE_TIMEOUT_S)
            if not isinstance(hello, Hello):
                raise LineClosed("a first message that is no hello")
            task = Task(hello.role, hello.index)
            with self._lock:
                if task in self._lines:
                    raise LineClosed(f"a second {task}")
                self._lines[task] = line
        except (LineClosed, OSError) as e:
            log.warning("Turned away a connection from %s: %s", peer, e)
            sock.close()
            return
        line.start_beating()
        self.events.put(Joined(task, hello))
        try:
            while True:
                self.events.put(Said(task, line.receive()))
        except LineClosed as e:
            reason = str(e)
        finally:
            line.close()
            with self._lock:
                self._lines.pop(task, None)
        self.events.put(Lost(task, reason))  # not before: whoever hears of it finds no line any more

    def connected(self) -> set[Task]:
        """The tasks that are on the line."""
        with self._lock:
            return set(self._lines)

    def send(self, task: Task, message: Message) -> bool:
        """False where that task has no line any more; its `Lost` is in the queue or on its way."""
        with self._lock:
            line = self._lines.get(task)
        if line is None:
            return False
        try:
            line.send(message)
        except LineClosed:
            return False
        return True

    def close(self) -> None:
        """Hangs up on everybody: a node that is still there takes that as the driver's end, and ends itself."""
        self._closing = True
        # accept() is woken by shutdown(), not by close().
        try:
            self._server.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._server.close()
        with self._lock:
            lines = list(self._lines.values())
        for line in lines:
            line.close()
