"""An attacker, who connects to each port of a running job and sends what does harm where it is believed.

As a program, which can be started on another host: `python tests/attacker.py` reads its orders from standard input and
prints an outcome a line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pickle
import random
import resource
import selectors
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # to be run as a program as well

from tests.listeners import HELD, LINE, PYTHONS, RENDEZVOUS, TENSORFLOW, Listener, num_kept  # noqa: E402
from tfos_job.protocol.frames import new_key, seal  # noqa: E402

NUM_FLOOD, NUM_HALF_OPEN = 2000, 64
NUM_FORKED = 200
"""Where each connection is a process of its own."""
CONNECT_S = 3.0
"""For the kernel to answer: it does so for a process that is busy, too, and is asked again after one second."""
CLOSED_S = 90.0
"""For what must be closed: many times the limit of the slowest handshake, of 10 s."""
WATCH_S = 12.0
"""For what need not be closed."""
_IP_BIND_ADDRESS_NO_PORT = 24  # of linux/in.h
_SLOW_PAUSE_S = 0.25
_FLOOD_S = 1.0
_WAVE = 256

NO_CONNECTION, REFUSED, CLOSED, OPEN = "no connection", "refused", "closed", "open"
FLOOD, HALF_OPEN, SLOW = "2,000 connections", "half-open connections", "slow sends"
CONNECTION = "connection"
"""To a Unix socket: whether its folder would let a user in."""
FEW, ONE_EACH = "few are kept", "all are kept"
MANY = 128
"""Connections of which a job may keep half open no more."""
REPLAYED = tuple(
    f"replayed {what} of {attempt} attempt"
    for attempt in ("this", "an earlier")
    for what in ("call", "registration", "question")
)


@dataclass(frozen=True)
class Outcome:
    """What came of one attack on one port.

    Attributes:
      listener: that was attacked.
      source: address that the connection came from.
      attack: its name.
      end: `NO_CONNECTION`, `REFUSED`, `CLOSED`, `OPEN`; of `FLOOD` also `FEW` or `ONE_EACH`, by what the job keeps.
      seconds: until the end; of `FLOOD` the number that is kept.
      received: all that was sent back.
    """

    listener: Listener
    source: str
    attack: str
    end: str
    seconds: float
    received: bytes = b""


class Marker:
    """A pickle of it makes a folder where it is loaded."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int, bool]]:
        return os.makedirs, (self._path, 0o700, True)


def payloads(marker: Path) -> dict[str, bytes]:
    """What is sent, by the attack's name; each would make `marker` where it is believed and can do so."""
    evil = pickle.dumps({"type": "REG", "data": Marker(str(marker)), "run": Marker(str(marker))})
    return {
        "garbage": random.Random(0).randbytes(1 << 16),
        "the longest length": b"\xff" * 64,
        "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "TLS": _tls_hello(),
        "gRPC": _grpc_call(),
        "pickle as in TensorFlowOnSpark": struct.pack(">I", len(evil)) + evil,
        "pickle with a wrong signature": seal(new_key(), b"reservation", evil),
        "pickle without a signature": seal(b"", b"", evil),
        "handshake of multiprocessing": _multiprocessing(evil),
        "py4j": _py4j(marker),
        "Spark RPC": _spark_rpc(),
        "Spark's Python worker": _python_worker(evil),
        "Spark's accumulators": b"0" * 64 + struct.pack(">iqi", 1, 0, len(evil)) + evil,
    }


def _tls_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def _grpc_call() -> bytes:
    """HTTP/2: the preface, settings, and a call of TensorFlow's master for its devices."""

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body

    def header(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    fields = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/tensorflow.MasterService/ListDevices"),
        (b":authority", b"localhost"), (b"content-type", b"application/grpc"), (b"te", b"trailers"),
    ]  # fmt: skip
    head = b"".join(header(*each) for each in fields)
    return b"".join(
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            frame(4, 0, 0, b""),
            frame(1, 4, 1, head),
            frame(0, 1, 1, bytes(5)),
        ]
    )


def _multiprocessing(evil: bytes) -> bytes:
    """A caller of a manager who answers its challenge wrongly, and then calls all the same."""
    parts = (bytes(16), b"#CHALLENGE#" + bytes(20), evil)
    return b"".join(struct.pack("!i", len(part)) + part for part in parts)


def _py4j(marker: Path) -> bytes:
    """Makes a java.io.File and has it made; with a token that is none before."""
    path = str(marker)
    commands = (
        "A\n" + "0" * 43 + "\ne\n",
        f's"{path}"\ne\n',
        f'i\njava.io.File\ns"{path}"\ne\n',
        "c\no0\ncreateNewFile\ne\n",
    )
    return "".join(commands).encode()


def _spark_rpc() -> bytes:
    """A request whose body is an object in Java's form, which nobody may read of a stranger."""

    def utf(text: str) -> bytes:
        return struct.pack(">H", len(text)) + text.encode()

    # No sender; a receiver; then java.lang.Integer(7), as java.io.ObjectOutputStream writes it.
    number = bytes.fromhex("aced0005737200116a6176612e6c616e672e496e746567657212e2a0a4f781873802000149000576616c7565")
    parent = bytes.fromhex("787200106a6176612e6c616e672e4e756d62657286ac951d0b94e08b020000787000000007")
    body = b"\x00" + b"\x01" + utf("localhost") + struct.pack(">i", 1) + utf("endpoint-verifier") + number + parent
    # Length of the frame, 3 for a request, its number, length of the body.
    return struct.pack(">qBqi", 8 + 1 + 8 + 4 + len(body), 3, 1, len(body)) + body


def _python_worker(evil: bytes) -> bytes:
    """A secret that is none, then what the JVM would send a worker: a split, versions, and a pickled function."""
    secret = b"0" * 64
    return struct.pack(">i", len(secret)) + secret + struct.pack(">i", 0) + struct.pack(">i", len(evil)) + evil


@dataclass
class _Connection:
    """One connection of an attack, until it has ended or was watched long enough."""

    listener: Listener
    source: str
    attack: str
    payload: bytes
    watch_s: float
    pause_s: float = 0.0
    connect_s: float = CONNECT_S
    sock: socket.socket = field(init=False)
    began_s: float = field(init=False)
    is_connected: bool = False
    num_sent: int = 0
    next_s: float = 0.0
    received: bytes = b""
    end: str = ""
    seconds: float = 0.0

    def begin(self, to: tuple[str, int]) -> None:
        self.began_s = time.monotonic()
        self.sock = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)  # many to many need few ports
        self.sock.bind((self.source, 0))
        code = self.sock.connect_ex(to)
        if code not in (0, errno.EINPROGRESS):
            self.finish(REFUSED)

    def finish(self, end: str) -> None:
        self.end, self.seconds = end, time.monotonic() - self.began_s
        self.sock.close()

    def on_ready(self, is_readable: bool) -> None:
        if not self.is_connected:
            if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.finish(REFUSED)
                return
            self.is_connected = True
        try:
            if is_readable:
                if not (block := self.sock.recv(1 << 16)):
                    self.finish(CLOSED)
                    return
                self.received += block
            self._send()
        except BlockingIOError:
            pass
        except OSError:  # reset
            self.finish(CLOSED)

    def _send(self) -> None:
        if self.num_sent < len(self.payload) and time.monotonic() >= self.next_s:
            size = 1 if self.pause_s else len(self.payload)
            self.num_sent += self.sock.send(self.payload[self.num_sent : self.num_sent + size])
            self.next_s = time.monotonic() + self.pause_s

    def on_time(self) -> None:
        waited_s = time.monotonic() - self.began_s
        if not self.is_connected and waited_s > self.connect_s:
            self.finish(NO_CONNECTION)
        elif waited_s > self.watch_s:
            self.finish(OPEN)
        elif self.is_connected and self.pause_s:
            try:
                self._send()
            except BlockingIOError:
                pass
            except OSError:  # reset
                self.finish(CLOSED)

    @property
    def interest(self) -> int:
        sends = not self.is_connected or (not self.pause_s and self.num_sent < len(self.payload))
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if sends else 0)

    def outcome(self) -> Outcome:
        return Outcome(self.listener, self.source, self.attack, self.end, self.seconds, self.received)


Aim = tuple[str, Listener]
"""Address that an attack comes from, and what it goes for."""


class Attacker:
    """Attacks ports.

    Args:
      marker: file or folder that attacks try to make.
      host: address of the host whose listeners are for all interfaces.
      recorded: bytes that were sent before by somebody who had the right to, by the name of that.
    """

    def __init__(self, marker: Path, *, host: str, recorded: Mapping[str, bytes] | None = None) -> None:
        self.marker, self.host = str(marker), host
        self._payloads = payloads(marker) | dict(recorded or {})

    def _to(self, aim: Aim) -> tuple[str, int]:
        source, listener = aim
        if ":" in source:
            return "::1", listener.port
        return (self.host if listener.is_for_all else listener.address), listener.port

    def flood(self, aims: Iterable[Aim]) -> list[Outcome]:
        """Opens very many connections to each, says nothing, and looks how many of them the job keeps."""
        waiting = list(aims)
        found: list[Outcome] = []
        with many_descriptors() as limit:
            while waiting:
                # No process has to bear two of a source at once.
                now = list({(aim[0], aim[1].pid): aim for aim in reversed(waiting)}.values())
                now = now[: max(1, limit // NUM_FLOOD - 1)]
                waiting = [aim for aim in waiting if aim not in now]
                found += self._flood(now)
        return found

    def _flood(self, aims: Sequence[Aim]) -> list[Outcome]:
        floods = []
        for source, listener in aims:
            number = NUM_FORKED if listener.port_name == PYTHONS else NUM_FLOOD
            floods.append([_Connection(listener, source, FLOOD, b"", CLOSED_S) for _ in range(number)])
        _follow([(self._to(aim), flood) for aim, flood in zip(aims, floods, strict=True)], _FLOOD_S)
        time.sleep(_FLOOD_S)
        return [_end_of(flood) for flood in floods]

    def attack(self, aims: Iterable[Aim]) -> list[Outcome]:
        """All other attacks, at the same time."""
        groups: list[tuple[tuple[str, int], list[_Connection]]] = []
        for source, listener in aims:
            watch_s = CLOSED_S if listener.port_name in (LINE, RENDEZVOUS) else WATCH_S
            make = [(name, payload, 0.0) for name, payload in self._payloads.items()]
            make += [(SLOW, struct.pack(">I", 1 << 10) + bytes(1 << 10), _SLOW_PAUSE_S)]
            make += [(HALF_OPEN, b"", 0.0)] * NUM_HALF_OPEN
            # Where somebody accepts, a crowd may have to wait for that.
            connect_s = CONNECT_S if listener.port_name in (TENSORFLOW, HELD) else watch_s
            group = [
                _Connection(listener, source, name, payload, watch_s, pause_s, connect_s)
                for name, payload, pause_s in make
            ]
            groups.append((self._to((source, listener)), group))
        with many_descriptors():
            _follow(groups)
        return _worst([each for _, group in groups for each in group])


def _end_of(flood: Sequence[_Connection]) -> Outcome:
    """Closes what is left of it."""
    first = flood[0]
    callers = {each.sock.getsockname()[:2] for each in flood if not each.end}
    kept = num_kept(first.listener, callers)
    ends = {each.end or (OPEN if each.is_connected else NO_CONNECTION) for each in flood}
    for each in flood:
        if not each.end:
            each.finish(OPEN)
    if ends <= {NO_CONNECTION, REFUSED}:
        return Outcome(first.listener, first.source, FLOOD, min(ends), 0.0)
    return Outcome(first.listener, first.source, FLOOD, ONE_EACH if kept > MANY else FEW, kept)


def can_reach(aim: Aim) -> bool:
    """Whether packets could get there at all."""
    source, listener = aim
    if ":" in source:
        return listener.kind == "tcp6" and listener.is_for_all
    return listener.kind.startswith("tcp") and (listener.is_for_all or ":" not in listener.address)


@contextlib.contextmanager
def many_descriptors() -> Iterator[int]:
    """This process may open as many as the system lets it; yields their number."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        yield most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def _worst(connections: Sequence[_Connection]) -> list[Outcome]:
    """One outcome for the connections of each attack on a port: the one that went furthest."""
    order = (NO_CONNECTION, REFUSED, CLOSED, OPEN)
    worst: dict[tuple[Listener, str, str], _Connection] = {}
    for each in connections:
        what = each.listener, each.source, each.attack
        known = worst.setdefault(what, each)
        if (order.index(each.end), each.seconds) > (order.index(known.end), known.seconds):
            worst[what] = each
    return [each.outcome() for each in worst.values()]


def _follow(groups: Sequence[tuple[tuple[str, int], Sequence[_Connection]]], limit_s: float = math.inf) -> None:
    """Begins connections to addresses, and goes on until all have ended; with a limit, until they are connected."""
    everyone = [each for _, group in groups for each in group]
    with selectors.DefaultSelector() as selector:
        for to, group in groups:
            for each in group:
                each.begin(to)
                if not each.end:
                    selector.register(each.sock, each.interest, each)
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s and any(
            not (each.end or (each.is_connected and limit_s < math.inf)) for each in everyone
        ):
            _turn(selector)
            for key in list(selector.get_map().values()) if limit_s == math.inf else ():
                key.data.on_time()
                if key.data.end:
                    selector.unregister(key.fd)


def _turn(selector: selectors.BaseSelector) -> None:
    for key, events in selector.select(0.1):
        each: _Connection = key.data
        each.on_ready(bool(events & selectors.EVENT_READ))
        if each.end:
            selector.unregister(key.fd)
        else:
            selector.modify(key.fd, each.interest, each)


class Siege:
    """Waves of connections that say nothing, or one byte, for the time of a `with`."""

    def __init__(self, source: str, targets: Sequence[Listener]) -> None:
        self._source = source
        self._targets = targets
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            for listener in self._targets:
                wave = [
                    _Connection(listener, self._source, FLOOD, b"\0" * (number % 2), CLOSED_S)
                    for number in range(_WAVE)
                ]
                _follow([((listener.address, listener.port), wave)], _FLOOD_S)
                self._ended.wait(_FLOOD_S)
                for each in wave:
                    if not each.end:
                        each.finish(OPEN)


def orders(attacker: Attacker, aims: Sequence[Aim]) -> str:
    """What `main` does, as JSON."""
    return json.dumps({"marker": attacker.marker, "host": attacker.host, "aims": [[at, asdict(to)] for at, to in aims]})


def outcomes_in(text: str) -> list[Outcome]:
    """What `main` prints."""
    found = []
    for line in text.splitlines():
        each = json.loads(line)
        listener, received = Listener(**each.pop("listener")), bytes.fromhex(each.pop("received"))
        found.append(Outcome(listener=listener, received=received, **each))
    return found


def main() -> None:
    given = json.load(sys.stdin)
    attacker = Attacker(Path(given["marker"]), host=given["host"])
    aims = [(source, Listener(**target)) for source, target in given["aims"]]
    for each in [*attacker.flood(aims), *attacker.attack(aims)]:
        print(json.dumps({**asdict(each), "received": each.received.hex()}))


if __name__ == "__main__":
    main()
