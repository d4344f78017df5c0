"""The tools of tests/cluster/test_attacker.py: an attack on what believes it succeeds, what is there is found."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests import attack_table, attacker, leaks, listeners
from tests.attacker import (
    CLOSED,
    FEW,
    FLOOD,
    HALF_OPEN,
    NO_CONNECTION,
    ONE_EACH,
    OPEN,
    REFUSED,
    REPLAYED,
    SLOW,
    Attacker,
    Outcome,
    payloads,
)
from tests.command import ROOT
from tests.listeners import COORDINATOR, DRIVER, JVM, LINE, PS, SPARK, TENSORFLOW, WORKER, Listener
from tfos_job.nodes.tfos import import_tfos

HERE, STRANGER = "127.0.0.1", "127.0.0.2"
SOURCES = {HERE: attack_table.OWN_HOST, STRANGER: attack_table.ELSEWHERE}


@contextlib.contextmanager
def served(serve: Callable[[socket.socket], object]) -> Iterator[Listener]:
    """A listener whose connections are each given to `serve`, and kept."""
    kept: list[socket.socket] = []
    with socket.create_server((HERE, 0), backlog=attacker.NUM_FLOOD) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])
                    with contextlib.suppress(OSError):
                        serve(kept[-1])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield Listener(os.getpid(), DRIVER, "tcp", HERE, server.getsockname()[1], LINE)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in kept:
                each.close()


def test_tensorflowonspark_itself_would_execute_what_is_sent(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(payloads(marker)["pickle as in TensorFlowOnSpark"])
        import_tfos().reservation.MessageSocket().receive(theirs)
    assert marker.exists()


def test_what_a_listener_does_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacker, "WATCH_S", 1.0)
    monkeypatch.setattr(attacker, "CLOSED_S", 1.0)
    monkeypatch.setattr(attacker, "NUM_FLOOD", 200)
    tool = Attacker(tmp_path / "marker", host=HERE, recorded=dict.fromkeys(REPLAYED, b"again"))
    with served(socket.socket.close) as closing, served(lambda sock: sock.sendall(b"secret")) as telling:
        found = tool.attack([(STRANGER, closing), (HERE, telling)])
        kept, closed = tool.flood([(HERE, telling)]), tool.flood([(STRANGER, closing)])
    gone = tool.flood([(HERE, closing)])
    ends = {each.attack: (each.end, each.received) for each in found if each.listener == telling}
    assert set(ends) == {HALF_OPEN, SLOW, *payloads(Path("marker")), *REPLAYED}
    assert set(ends.values()) == {(OPEN, b"secret")}
    assert {each.end for each in found if each.listener == closing} == {CLOSED}
    assert [(each.end, each.source) for each in (*kept, *closed, *gone)] == [
        (ONE_EACH, HERE), (FEW, STRANGER), (REFUSED, HERE),
    ]  # fmt: skip


def test_as_a_program_it_does_the_same(tmp_path: Path) -> None:
    with served(socket.socket.close) as closing:
        text = attacker.orders(Attacker(tmp_path / "marker", host=HERE), [(STRANGER, closing)])
        done = subprocess.run(
            [sys.executable, attacker.__file__], input=text, capture_output=True, text=True, check=True
        )
    found = attacker.outcomes_in(done.stdout)
    assert {each.listener for each in found} == {closing}
    assert {each.attack for each in found} == {FLOOD, HALF_OPEN, SLOW, *payloads(Path("marker"))}
    assert {each.end for each in found} == {CLOSED, FEW}


def test_what_a_process_listens_on_is_found(tmp_path: Path) -> None:
    with contextlib.ExitStack() as opened:
        here = opened.enter_context(socket.create_server((HERE, 0)))
        everywhere = opened.enter_context(socket.create_server(("", 0)))
        datagrams = opened.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        datagrams.bind((HERE, 0))
        unix = opened.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        silent = opened.enter_context(socket.socket())
        silent.bind((HERE, 0))
        found = {(each.kind, each.address, each.port) for each in listeners.listeners([psutil.Process()])}
        ports = [each.getsockname()[1] for each in (here, everywhere, datagrams, silent)]
    assert found >= {
        ("tcp", HERE, ports[0]),
        ("tcp", "0.0.0.0", ports[1]),
        ("udp", HERE, ports[2]),
        ("unix", str(tmp_path / "socket"), 0),
    }
    assert ports[3] not in {port for _, _, port in found}


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
def test_what_listens_on_ipv6_is_told_as_the_address_that_it_is() -> None:
    with contextlib.ExitStack() as opened:
        every = opened.enter_context(socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        mapped = opened.enter_context(socket.socket(socket.AF_INET6))
        mapped.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        mapped.bind((f"::ffff:{HERE}", 0))
        mapped.listen()
        found = {each.port: each for each in listeners.listeners([psutil.Process()])}
        for_all, for_one = found[every.getsockname()[1]], found[mapped.getsockname()[1]]
    assert (for_all.kind, for_all.address, for_all.is_for_all, for_all.is_loopback) == ("tcp6", "::", True, False)
    assert (for_one.kind, for_one.address, for_one.is_for_all, for_one.is_loopback) == ("tcp6", HERE, False, True)
    aims = [(source, each) for source in (HERE, "::1") for each in (for_all, for_one)]
    assert [attacker.can_reach(aim) for aim in aims] == [True, True, True, False]


SECRET = bytes(range(120, 152))


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        b"key=" + SECRET.hex().encode(),
        SECRET.hex().upper().encode(),
        repr({"key": SECRET}).encode(),
        json.dumps([SECRET.decode("latin-1")]).encode(),
        str(list(SECRET)).encode(),
        *(base64.b64encode(bytes(before) + SECRET + bytes(3)) for before in range(3)),
    ],
)
def test_a_secret_is_found_however_it_is_written(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "other").write_bytes(bytes(range(119)) + SECRET[:-1])
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "file"
    path.write_bytes(b"before " + written + b" behind")
    assert list(leaks.in_files({"the key": SECRET}, tmp_path)) == [f"the key in {path}"]


@pytest.mark.parametrize("place", ["cmdline", "environ"])
def test_a_secret_of_a_process_is_found(place: str) -> None:
    words = [sys.executable, "-c", "print(flush=True); input()", *([SECRET.hex()] if place == "cmdline" else [])]
    environment = os.environ | ({"KEY": SECRET.hex()} if place == "environ" else {})
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it runs: its words are those of the program that it was to become
        found = list(leaks.in_processes({"the key": SECRET}, [psutil.Process(process.pid), psutil.Process()]))
        process.communicate(b"\n")
    assert len(found) == 1
    assert found[0].startswith(f"the key in {place} of ")


def outcome(process: str, port_name: str, source: str, attack: str, end: str, received: bytes = b"") -> Outcome:
    return Outcome(Listener(1, process, "tcp", HERE, 5, port_name), source, attack, end, 0.5, received)


def test_the_table_says_what_is_equal_once_and_of_several_the_worst() -> None:
    attacks = (HALF_OPEN, FLOOD, "HTTP", REPLAYED[0])
    made = attack_table.table(
        [
            *(
                outcome(each, TENSORFLOW, STRANGER, attack, NO_CONNECTION)
                for attack in attacks
                for each in (PS, WORKER)
            ),
            *(outcome(DRIVER, LINE, source, HALF_OPEN, CLOSED, bytes(16)) for source in SOURCES),
            *(outcome(DRIVER, LINE, source, FLOOD, FEW) for source in SOURCES),
            outcome(DRIVER, LINE, STRANGER, "HTTP", CLOSED, bytes(range(16))),
            outcome(DRIVER, LINE, STRANGER, "TLS", OPEN),
            outcome(DRIVER, LINE, HERE, REPLAYED[0], CLOSED),
            outcome(JVM, SPARK, HERE, "TLS", CLOSED, b"HTTP/1.1 400 Bad Request"),
            outcome(JVM, SPARK, HERE, FLOOD, ONE_EACH),
        ],
        SOURCES,
    )
    assert made.splitlines()[2:] == [
        "| TensorFlow's gRPC | worker, parameter server | another address | all | no connection |",
        "| control line | driver | another address | nothing sent; slow sends | closed; answered with a nonce |",
        "| control line | driver | another address | 2,000 connections | few are kept |",
        "| control line | driver | another address | garbage, pickles, calls of other protocols | "
        "nothing happens; may stay open; answered with a nonce |",
        "| control line | driver | the job's hosts | nothing sent; slow sends | closed; answered with a nonce |",
        "| control line | driver | the job's hosts | 2,000 connections | few are kept |",
        "| control line | driver | the job's hosts | replayed frames | closed |",
        "| Spark's page | Spark's JVM of the driver | the job's hosts | 2,000 connections | "
        "nothing happens; may stay open |",
        "| Spark's page | Spark's JVM of the driver | the job's hosts | garbage, pickles, calls of other protocols | "
        "closed; answered with HTTP 400 |",
    ]


def test_the_table_is_written_between_its_marks() -> None:
    page = f"before\n{attack_table.BEGIN}\nold\n{attack_table.END}\nbehind\n"
    made = attack_table.table(
        [outcome(JVM, SPARK, HERE, FLOOD, OPEN), outcome(PS, TENSORFLOW, HERE, FLOOD, OPEN)], SOURCES
    )
    written = attack_table.written(page, made)
    assert written == f"before\n{attack_table.BEGIN}\n{made}{attack_table.END}\nbehind\n"
    assert attack_table.written(written, made) == written
    assert attack_table.processes_of(written) == {JVM, PS}
    with pytest.raises(ValueError, match="attacker: begin"):
        attack_table.written("no marks", made)


def test_the_document_names_every_process_that_is_attacked() -> None:
    """The table there is that of the campaign: of a training on local Spark, and of one on hosts of YARN."""
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    assert attack_table.processes_of(page) >= {DRIVER, COORDINATOR, WORKER, PS, JVM}
    assert attack_table.HEAD in page.partition(attack_table.BEGIN)[2]
