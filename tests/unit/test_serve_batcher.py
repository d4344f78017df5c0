"""Batches of a network that a test holds in its hand: it computes when it is let, and shows what it was given."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tfos_job.serve.batcher import Batcher, Ticket
from tfos_job.serve.refusals import Failed, Full, Unavailable

LONG_AGO_S = -1e9  # a request that has waited long enough, whatever the latency


class Network:
    """Twice each picture's number. Each batch is put into `batches`, and waits for a word in `words`."""

    def __init__(self) -> None:
        self.batches: queue.Queue[list[int]] = queue.Queue()
        self.words: queue.Queue[BaseException | None] = queue.Queue()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.put(list(numbers))
        word = self.words.get()
        if word is not None:
            raise word
        return [2 * number for number in numbers]

    def go(self, num_batches: int = 1) -> None:
        for _ in range(num_batches):
            self.words.put(None)


class Watched:
    def __init__(self) -> None:
        self.waits: list[Sequence[float]] = []
        self.num_ended = 0

    def began(self, waits_s: Sequence[float]) -> None:
        self.waits.append(waits_s)

    def ended(self, took_s: float) -> None:
        assert took_s >= 0
        self.num_ended += 1


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.go(100)


def batcher_of(network: Network, **changes: object) -> Batcher:
    settings = {"max_batch_size": 4, "max_latency_s": 3600.0, "max_queue": 8, "watcher": None, **changes}
    return Batcher(network, **settings)  # type: ignore[arg-type]


def put(batcher: Batcher, *numbers: int, arrived_s: float | None = None) -> Ticket:
    with batcher.reserved(len(numbers)) as places:
        return places.put(numbers, time.monotonic() if arrived_s is None else arrived_s)


def results(ticket: Ticket) -> list[int]:
    return ticket.wait(time.monotonic() + 600)


def test_a_full_batch_waits_for_nobody_and_answers_go_to_their_requests(network: Network) -> None:
    watcher = Watched()
    batcher = batcher_of(network, watcher=watcher)
    with batcher.reserved(1):  # somebody is on the way, and the latency is an hour
        first, second = put(batcher, 1, 2, 3), put(batcher, 4, 5)
        assert network.batches.get() == [1, 2, 3, 4]  # one picture of a request without the other
        network.go()
        assert results(first) == [2, 4, 6]
        assert not second.is_done
        third = put(batcher, 6, 7, 8)
        assert network.batches.get() == [5, 6, 7, 8]
        network.go()
        assert (results(second), results(third)) == ([8, 10], [12, 14, 16])
    assert batcher.close(600)
    assert [len(waits) for waits in watcher.waits] == [4, 4]
    assert watcher.num_ended == 2


def test_a_batch_waits_for_those_alone_who_are_on_their_way(network: Network) -> None:
    batcher = batcher_of(network)
    network.go(3)
    assert results(put(batcher, 1)) == [2]  # nobody else is there, so an hour's latency is none
    with batcher.reserved(1) as places:
        ticket = put(batcher, 2)
        other = places.put([3], time.monotonic())
        assert (results(ticket), results(other)) == ([4], [6])
    with batcher.reserved(1):  # its picture cannot be read
        ticket = put(batcher, 4)
        assert not ticket.is_done
    assert results(ticket) == [8]
    assert [network.batches.get() for _ in range(3)] == [[1], [2, 3], [4]]


def test_the_latency_counts_from_the_arrival_of_the_first_request(network: Network) -> None:
    batcher = batcher_of(network)
    with batcher.reserved(1):
        first = put(batcher, 1)
        put(batcher, 2)
        assert batcher._due_in_s(first.arrived_s + 600) == pytest.approx(3000)
        assert batcher._due_in_s(first.arrived_s + 3600) == pytest.approx(0)
        put(batcher, 3, arrived_s=LONG_AGO_S)  # who arrived first, also if another one was decoded sooner
        assert network.batches.get() == [1, 2, 3]
        network.go()


def test_while_the_network_is_busy_the_next_batch_gresults(network: Network) -> None:
    batcher = batcher_of(network, max_latency_s=0.0)
    put(batcher, 1)
    assert network.batches.get() == [1]
    tickets = [put(batcher, number) for number in range(2, 8)]
    network.go(3)
    assert [results(ticket) for ticket in tickets] == [[2 * number] for number in range(2, 8)]
    assert [network.batches.get(), network.batches.get()] == [[2, 3, 4, 5], [6, 7]]


def test_a_full_queue_refuses_and_places_come_back(network: Network) -> None:
    batcher = batcher_of(network, max_latency_s=0.0, max_queue=3)
    put(batcher, 1)
    network.batches.get()  # computing: it takes no place any more
    with batcher.reserved(2) as places:
        put(batcher, 2)
        with pytest.raises(Full) as refused, batcher.reserved(1):
            pass
        assert int(refused.value.headers["Retry-After"]) >= 1
        places.put([3], time.monotonic())  # the other one's picture could not be read
    assert batcher.num_waiting == 2
    put(batcher, 4)
    network.go(2)
    assert network.batches.get() == [2, 3, 4]


def test_a_failure_of_the_network_is_that_of_its_batch_alone(network: Network) -> None:
    batcher = batcher_of(network, max_latency_s=0.0)
    ticket = put(batcher, 1)
    network.words.put(ValueError("/secret/path"))
    with pytest.raises(Failed) as failed:
        results(ticket)
    assert "ValueError" in failed.value.fact
    assert "secret" not in failed.value.fact
    network.go()
    assert results(put(batcher, 2)) == [4]
    assert batcher.is_alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_death_of_the_thread_is_seen_and_nobody_waits_for_it(network: Network) -> None:
    batcher = batcher_of(network, max_latency_s=0.0)
    computed = put(batcher, 1)
    network.batches.get()
    queued = put(batcher, 2)
    network.words.put(KeyboardInterrupt())
    for ticket in (computed, queued):
        with pytest.raises(Failed):
            results(ticket)
    batcher._thread.join()
    assert not batcher.is_alive
    with pytest.raises(Failed):
        put(batcher, 3)


def test_who_gave_up_is_not_computed(network: Network) -> None:
    batcher = batcher_of(network, max_latency_s=0.0)
    put(batcher, 1)
    network.batches.get()
    gone, there = put(batcher, 2), put(batcher, 3)
    with pytest.raises(Unavailable, match="no answer in time"):
        gone.wait(time.monotonic())
    network.go(2)
    assert results(there) == [6]
    assert network.batches.get() == [3]


def test_closing_answers_what_is_queued_and_takes_nothing_more(network: Network) -> None:
    batcher = batcher_of(network)
    with ThreadPoolExecutor(1) as pool, batcher.reserved(1):
        ticket = put(batcher, 1)
        closing = pool.submit(batcher.close, 600.0)
        assert network.batches.get() == [1]  # at once, whatever the latency
        with pytest.raises(Unavailable):
            put(batcher, 2)
        network.go()
        assert closing.result()
        assert results(ticket) == [2]
    assert batcher.num_waiting == 0


def test_many_threads_get_their_own_answers() -> None:
    sizes: list[int] = []

    def network(numbers: Sequence[int]) -> list[int]:
        sizes.append(len(numbers))
        return [2 * number for number in numbers]

    batcher = Batcher(network, max_batch_size=8, max_latency_s=0.001, max_queue=64, watcher=None)
    barrier = threading.Barrier(16)

    def ask(number: int) -> list[list[int]]:
        barrier.wait()
        return [results(put(batcher, number, number + 1000 * k)) for k in range(50)]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(16)))
    assert found == [[[2 * n, 2 * n + 2000 * k] for k in range(50)] for n in range(16)]
    assert sum(sizes) == 16 * 50 * 2
    assert max(sizes) <= 8
    assert batcher.close(600)
