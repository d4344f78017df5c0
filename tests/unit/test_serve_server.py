"""waitress with our loop, by sockets: what a client of Flask cannot see."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from waitress.channel import HTTPChannel

from tfos_job.errors import ResourceError
from tfos_job.serve import server
from tfos_job.serve.channel import Broken
from tfos_job.serve.hub import Latch
from tfos_job.serve.server import Server, ServerLimits, listen, url_of

LARGE_BYTES = 15_000_000  # more than the system holds of what nobody reads
LIMITS = {"max_connections": 64, "max_body_bytes": 1000, "request_s": 600.0}


class Held:
    """Running: a server whose application answers `/held` when it is let, and everything else at once."""

    def __init__(self, **changes: Any) -> None:
        self.asked, self.go, self.leave = threading.Semaphore(0), Latch(), threading.Event()
        self.broken: list[Broken] = []
        listener = listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{self.port}/"
        limits = ServerLimits(**{**LIMITS, **changes})
        self.server = Server(self._answer, listener, limits, self.broken.append)

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = environ["wsgi.input"].read()
        assert "HTTP_TRANSFER_ENCODING" not in environ  # whoever sees it looks for another body, or for none
        self.asked.release()
        if environ["PATH_INFO"] == "/held":
            self.go.wait()
        if environ["PATH_INFO"] == "/stuck":
            self.leave.wait()
        if environ["PATH_INFO"] == "/large":
            body = b"x" * LARGE_BYTES
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))

    def ask(self, path: str = "/", body: bytes = b"body") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        with contextlib.closing(connection):
            connection.request("POST", path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.go.set()
    made.server.stop(600)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as made:
        yield made


def until_refused(server: Held) -> None:
    while True:
        try:
            server.connect().close()
        except ConnectionRefusedError:
            return


def until_half_read(server: Held) -> None:
    while not any(channel.request for channel in server.server._channels()):
        pass


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    data = b""
    with connection:
        while block := connection.recv(1000):
            data += block
    return data


def head(body_bytes: int, path: str = "/") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {body_bytes}\r\n\r\n".encode()


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECT = b"Expect: 100-continue\r\n\r\n"


def test_the_end_loses_no_request_that_has_begun(held: Held, pool: ThreadPoolExecutor) -> None:
    """Many that wait, one that is half sent, and one connection that is kept alive."""
    kept = http.client.HTTPConnection("127.0.0.1", held.port)
    kept.request("GET", "/")
    kept.getresponse().read()
    held.asked.acquire()
    half = held.connect()
    half.sendall(head(4) + b"ha")
    callers = [held.connect() for _ in range(20)]
    for caller in callers:
        caller.sendall(head(4, "/held") + b"body")
    ending = pool.submit(held.server.stop, 600)
    until_refused(held)
    half.sendall(b"lf")
    held.go.set()
    for caller, body in [*((caller, b"body") for caller in callers), (half, b"half")]:
        data = read_to_end(caller)
        assert data.startswith(b"HTTP/1.1 200 OK")
        assert data.endswith(body)
    assert ending.result() == 0
    assert kept.sock is not None
    assert read_to_end(kept.sock) == b""


def test_the_end_answers_all_requests_that_came_together(held: Held, pool: ThreadPoolExecutor) -> None:
    with held.connect() as caller:
        caller.sendall((head(4, "/held") + b"body") * 2 + head(4) + b"la")
        held.asked.acquire()
        ending = pool.submit(held.server.stop, 600)
        until_refused(held)
        held.go.set()
        held.asked.acquire()
        caller.sendall(b"st")
        data = read_to_end(caller)
    assert (data.count(b"200 OK"), data.count(b"body"), data[-4:]) == (3, 2, b"last")
    assert ending.result() == 0


def test_an_end_that_is_due_says_how_many_have_no_answer(held: Held, pool: ThreadPoolExecutor) -> None:
    answers: list[Future[Any]] = [pool.submit(held.ask, "/held") for _ in range(3)]
    for _ in range(3):
        held.asked.acquire()
    assert held.server.stop(0.05) == 3
    for answer in answers:
        assert isinstance(answer.exception(), OSError | http.client.HTTPException)
    assert held.server.stop(0.05) == 3


def test_the_end_does_not_wait_for_a_request_that_holds_the_loop(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_STUCK_S", 0.0)
    with held.connect() as caller:
        caller.sendall(head(0, "/stuck"))
        held.asked.acquire()
        assert held.server.stop(0.0) == 1
        held.leave.set()
        held.server.wait()


def test_after_its_end_nobody_writes_to_the_pipe_that_woke_it(held: Held) -> None:
    """Its number may be another file's by then."""
    assert held.server.stop(600) == 0
    pipes = [os.pipe() for _ in range(8)]
    held.server._wake()
    assert select.select([reading for reading, _ in pipes], [], [], 0)[0] == []
    for pipe in pipes:
        for descriptor in pipe:
            os.close(descriptor)


def test_slow_callers_hold_up_nobody(held: Held) -> None:
    """With half a head or half a body."""
    callers = [held.connect() for _ in range(32)]
    for number, caller in enumerate(callers):
        caller.sendall(head(100)[: -1 - 3 * (number % 2)] if number < 16 else head(100) + b"x")
    assert held.ask() == (200, b"body")
    for caller in callers:
        caller.close()


def test_a_request_that_does_not_come_is_given_up() -> None:
    held = Held(request_s=0.0)
    with held.connect() as caller:
        caller.sendall(b"POST / HT")
        data = read_to_end(caller)
    assert data.startswith(b"HTTP/1.0 408 Request Timeout\r\n")
    assert data.endswith(b'{"error": "Request Timeout: the request has not come within 0 s"}')
    with held.connect() as caller:
        caller.sendall(head(4, "/a?b") + b"bo")
        assert read_to_end(caller).startswith(b"HTTP/1.1 408 ")
    held.server.stop(600)
    known = [(broken.status, broken.method, broken.path, broken.client) for broken in held.broken]
    assert known == [(408, "", "", "127.0.0.1"), (408, "POST", "/a", "127.0.0.1")]


def test_an_answer_that_is_not_taken_is_given_up() -> None:
    held = Held(request_s=0.0)
    with held.connect() as caller:
        caller.sendall(head(0, "/large"))
        held.asked.acquire()
        while held.server._channels():
            pass
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while block := caller.recv(1 << 20):
                taken += len(block)
        assert taken < LARGE_BYTES
    held.server.stop(600)


ODD = {
    "half an address": (b"GET http://[::1/ HTTP/1.1\r\n\r\n", "400 Bad Request", "Invalid IPv6 URL"),
    "5,000 digits": (head(0)[:-5] + b"9" * 5000 + b"\r\n\r\n", "400 Bad Request", "Exceeds the limit"),
    "a signed length": (head(0)[:-5] + b"-1\r\n\r\n", "400 Bad Request", "Content-Length is invalid"),
    "a large head": (head(0)[:-2] + b"X: " + b"x" * 20_000, "431 Request Header", "exceeds max_header of 16384"),
    "a line without end": (CHUNKED + b"5;" + b"x" * 40_000, "400 Bad Request", "more than 16384 bytes between chunks"),
    "a trailer without end": (CHUNKED + b"0\r\n" + b"a: b\r\n" * 9_000, "400 Bad Request", "between chunks"),
    "no chunk": (CHUNKED + b"zz\r\n", "400 Bad Request", "Invalid chunk size"),
    "another coding": (CHUNKED.replace(b"chunked", b"gzip, chunked"), "501 Not Implemented", "not supported"),
    "asks to send too much": (head(10**6)[:-2] + EXPECT, "413 Request Entity Too Large", "larger than 100000 bytes"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_request_is_refused_in_words_and_noted(name: str) -> None:
    request, status, fact = ODD[name]
    held = Held(max_body_bytes=100_000)
    with held.connect() as caller:
        caller.sendall(request)
        data = read_to_end(caller)
    line, _, body = data.partition(b"\r\n")
    assert line.partition(b" ")[2].decode().startswith(status)
    assert fact in json.loads(body.partition(b"\r\n\r\n")[2])["error"]
    assert [str(broken.status) for broken in held.broken] == [status[:3]]
    assert held.ask() == (200, b"body")
    held.server.stop(600)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_encoding_for_the_transfer_is_nothing_to_the_application(held: Held, version: str) -> None:
    request = CHUNKED.replace(b"1.1", version.encode())
    length, body = (b"Content-Length: 4\r\n", b"body") if version == "1.0" else (b"", b"4\r\nbody\r\n0\r\n\r\n")
    with held.connect() as caller:
        caller.sendall(request[:-2] + length + b"Connection: close\r\n\r\n" + body)
        data = read_to_end(caller)
    assert data.startswith(f"HTTP/{version} 200 OK".encode())
    assert data.endswith(b"\r\n\r\nbody")


def test_who_asks_whether_to_send_is_told(held: Held) -> None:
    with held.connect() as caller:
        caller.sendall(head(4)[:-2] + EXPECT)
        assert caller.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.sendall(b"body" + head(0)[:-2] + EXPECT)  # the second one has no body to ask for
        data = b""
        while data.count(b"200 OK") < 2:
            data += caller.recv(1000)
        assert b"100 Continue" not in data


def test_idle_connections_make_room() -> None:
    held = Held(max_connections=4)
    idle = [held.connect() for _ in range(4)]
    assert held.ask() == (200, b"body")
    for caller in idle:
        caller.close()
    held.server.stop(600)


def test_half_requests_make_room_for_whole_ones() -> None:
    """Not before somebody else calls, and each is told."""
    held = Held(max_connections=1)
    with held.connect() as half:
        half.sendall(head(4) + b"ha")
        until_half_read(held)
        assert held.ask() == (200, b"body")
        data = read_to_end(half)
    assert data.startswith(b"HTTP/1.1 408 ")
    assert b"others wait for a connection" in data
    crowd = [held.connect() for _ in range(12)]
    for caller in crowd:
        caller.sendall(head(4))
    assert held.ask() == (200, b"body")
    for caller in crowd:
        caller.close()
    with held.connect() as slow:
        slow.sendall(head(4) + b"bo")
        until_half_read(held)
        slow.sendall(b"dy")
        assert slow.recv(100).startswith(b"HTTP/1.1 200 ")
    held.server.stop(600)


def test_a_body_that_is_too_large_is_told_to_who_is_still_sending(held: Held) -> None:
    assert held.ask(body=b"x" * 1000) == (200, b"x" * 1000)
    with held.connect() as caller:
        caller.sendall(head(50_000_000))
        for _ in range(200):
            caller.sendall(b"x" * 100_000)
        data = caller.recv(10_000)
        assert data.startswith(b"HTTP/1.1 413 ")
        assert data.endswith(b'{"error": "the body is larger than 1000 bytes"}')
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(1) == b""
    with held.connect() as caller:
        caller.sendall(b"nonsense\r\n\r\n")
        assert caller.recv(10_000).startswith(b"HTTP/1.0 400 ")
    assert [broken.status for broken in held.broken] == [413, 400]


def test_an_answer_goes_in_one_piece(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[bytes] = []
    write = HTTPChannel.write_soon
    monkeypatch.setattr(HTTPChannel, "write_soon", lambda self, data: (pieces.append(data), write(self, data))[1])
    assert held.ask(body=b"a body") == (200, b"a body")
    [piece] = pieces
    assert piece.endswith(b"\r\n\r\na body")


def test_a_port_that_is_taken_is_named(held: Held) -> None:
    with pytest.raises(ResourceError, match=rf"127\.0\.0\.1:{held.port}: cannot listen there"):
        listen("127.0.0.1", held.port)
    with pytest.raises(ResourceError, match="--port 0"):
        listen("no such host", 0)
