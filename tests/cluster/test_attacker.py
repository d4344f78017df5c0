"""A training under attack on every port that its processes have open: it trains on, and tells nobody anything.

What the attacks are: tests/attacker.py; how the training goes: tests/attacked.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import listeners as at
from tests.attack_table import answer_of
from tests.attacked import ELSEWHERE, HERE, NUM_STEPS, Found, LocalTraining
from tests.attacker import CLOSED, FEW, FLOOD, HALF_OPEN, NO_CONNECTION, REFUSED, REPLAYED, SLOW, Outcome, payloads
from tests.leaks import forms
from tfos_job import storage
from tfos_job.host import server_port
from tfos_job.layout import RunLayout

pytestmark = pytest.mark.cluster

JAVA_OBJECT = bytes.fromhex("aced0005")
"""What a stream of Java's objects begins with: an answer to a request that was read."""
NUM_OWN = 32
"""Descriptors of a driver whose nodes are there: lines, ports, the pipes of its children."""


@pytest.fixture(scope="module")
def training(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTraining]:
    training = LocalTraining(small_dataset, tmp_path_factory.mktemp("attacked"))
    try:
        yield training
    finally:
        training.close()


@pytest.fixture(scope="module")
def found(training: LocalTraining) -> Found:
    """One training for all tests of this file."""
    return training.run()


def on(found: Found, *port_names: str) -> list[Outcome]:
    return [each for each in found.outcomes if each.listener.port_name in port_names]


def test_it_trains_on_and_nothing_is_executed(training: LocalTraining, found: Found) -> None:
    assert found.exit_code == 0, found.said
    assert storage.read_json(RunLayout(str(training.run_dir)).report)["step"] == NUM_STEPS
    begun, later = found.steps
    assert begun < later < NUM_STEPS  # it did not stand still meanwhile, nor was it over
    assert not training.marker.exists()
    before, after = found.descriptors
    assert after <= before + NUM_OWN


def test_every_port_was_attacked_in_every_way(found: Found) -> None:
    every = {FLOOD, HALF_OPEN, SLOW, *payloads(Path("marker")), *REPLAYED}
    for listener in [each for each in found.listeners if each.kind != "unix"]:
        assert listener.kind in ("tcp", "tcp6"), listener
        sources = (ELSEWHERE,) if listener.port_name in (at.TENSORFLOW, at.HELD) else (ELSEWHERE, HERE)
        for source in sources:
            attacks = [each.attack for each in found.outcomes if (each.listener, each.source) == (listener, source)]
            assert every <= set(attacks), listener
    assert {at.DRIVER, at.JVM, at.COORDINATOR, at.WORKER, at.PS} <= {each.process for each in found.listeners}
    assert {at.TENSORFLOW, at.HELD, at.LINE, at.RENDEZVOUS, at.SPARK, at.PY4J} <= {
        each.port_name for each in found.listeners
    }


def test_strangers_are_turned_away_by_the_driver(found: Found) -> None:
    """Soon, few at a time, and without a word but for its half of a session's key, which is new for each."""
    outcomes = on(found, at.LINE, at.RENDEZVOUS)
    for each in outcomes:
        assert each.end in ((FEW,) if each.attack == FLOOD else (CLOSED, REFUSED)), each
        assert answer_of(each.received) in ("", "a nonce"), each
    nonces = [each.received for each in outcomes if len(each.received) == 16]
    assert len(set(nonces)) == len(nonces) > 0


def test_tensorflow_answers_the_hosts_of_the_job_alone(found: Found) -> None:
    if missing := server_port.try_out():
        pytest.skip(missing)
    assert {each.end for each in on(found, at.TENSORFLOW, at.HELD)} == {NO_CONNECTION}
    servers = {at.WORKER, at.PS, at.COORDINATOR}
    by_source = {
        source: [(process, answer) for origin, process, answer in found.intrusions if origin == source]
        for source in (ELSEWHERE, HERE)
    }
    assert {process for process, _ in by_source[ELSEWHERE]} == servers
    assert all(answer.startswith("no file: ") for _, answer in by_source[ELSEWHERE]), by_source
    # It is an attack: whoever may use a server may have it write files.
    assert set(by_source[HERE]) == {(server, "written") for server in servers}


def test_spark_reads_nothing_of_strangers(found: Found) -> None:
    """Its Python processes have no port: they would fork, or wait, for whoever connects."""
    assert not on(found, at.PYTHONS, at.ACCUMULATORS)
    for each in on(found, at.SPARK, at.PY4J):
        assert JAVA_OBJECT not in each.received, each
        assert answer_of(each.received) in ("", "an error"), each
    sockets = on(found, at.LOCAL)
    assert {each.listener.process for each in sockets} >= {at.DRIVER, at.DAEMON}
    assert {each.end for each in sockets} == {NO_CONNECTION}


def test_no_secret_is_told(found: Found) -> None:
    assert {"the job's key", "py4j's token"} <= set(found.secrets)
    assert found.leaks == set()
    told = {form for secret in found.secrets.values() for form in forms(secret)}
    assert not [each for each in found.outcomes for form in told if form in each.received]
