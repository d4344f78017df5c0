"""What a cluster's steps come to, by the seconds and bytes of one step: a closed network of queues. Pure.

Workers of a parameter-server training circulate: each reads all variables, computes, sends all gradients, and begins
again, whatever the others do. They meet at the servers, where each has to wait for those before it: on the link out of
a server, on the link into it, and for its processors. That is a closed queueing network, which Mean Value Analysis
solves worker by worker (Reiser and Lavenberg, 1980): who arrives finds what a network of one worker less has waiting
there. For one server and nothing that hides anything it is exact.

A step asks all servers at once and ends with the last. So the server with the most bytes counts, and another worker is
in the way if it is at any of the servers. While there are so few that each server's link has room for what their own
links carry, nobody waits.

Steps come in blocks (training/loop.py), and the first step of a block is begun by all workers at once: all read, all
compute, all send, and each queue has all of them at a time. From then on they part, since connections do not share a
link evenly. So a block takes a step in which each waits for all, and others by Mean Value Analysis.
tests/unit/test_scale.py compares that with a simulation, byte by byte.

What hides what within a step:

- Work for the wire (copies, messages, the update) and the waiting for a link hide each other, except for their bursts:
  together they take the root of the sum of their squares.
- Computing hides behind the links, by up to HIDDEN_COMPUTE of itself: other layers are computed while the variables of
  the largest one come, or its gradient goes. And by up to HIDING_LINK of the time on the links. Of several batches for
  one update only the first pass forward and the last one backward do, together as much as one batch.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping

HIDDEN_COMPUTE = 0.7
HIDING_LINK = 0.5
BLOCK_S = 1.5
"""What a training hands its workers at once, by training/loop.py: at least a step for each."""
LINK_SHARE = 0.956
"""Of a link's speed that is left for bytes of variables: headers take the rest."""
ALL_REDUCE = "all_reduce"
PAYING_GAIN = 1.2
"""Twice as many workers pay where they train so many times as many images a second."""
OUT, INTO = "link from server", "link to server"
COMPUTING, SOFTWARE, LINK = "computing", "work for the wire", "own link"
SERVER_LINK, SERVER_CPU, CORES = "servers' links", "servers' processors", "shared cores"
"""Parts of a step: of itself, and waiting for others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What one worker's step takes.

    Attributes:
      images: of it.
      num_batches: of it; all have to be computed before the one update.
      compute_s: forward and backward passes of all of them, the input included.
      server_bytes: of the variables on each parameter server. They come to the worker, and as many bytes go back.
      software_s: reading and updating on links without a limit, without another worker.
      server_cpu_s: processor time of it on all servers together.
      cpu_s: processor time of the whole step on all hosts together; it counts only where they share cores.
    """

    images: int
    num_batches: int = 1
    compute_s: float
    server_bytes: tuple[float, ...]
    software_s: float
    server_cpu_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def num_even_servers(self) -> float:
        """The servers that would do as well if each had as many bytes as the one with the most."""
        return sum(self.server_bytes) / max(self.server_bytes)

    @property
    def hidden_share(self) -> float:
        """Of the computing, what a link can hide."""
        return HIDDEN_COMPUTE / self.num_batches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hosts:
    """What the steps are taken on.

    Attributes:
      link_gbit: of each host's link in each direction; infinite for no limit.
      server_cores: of the host of each parameter server.
      shared_cores: of a machine that all hosts are on; None if each has its own.
    """

    link_gbit: float
    server_cores: float = math.inf
    shared_cores: float | None = None

    def seconds(self, num_bytes: float) -> float:
        """Of so many bytes on one link."""
        return num_bytes * 8e-9 / (self.link_gbit * LINK_SHARE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Of a cluster.

    Attributes:
      num_workers: of it.
      step_s: a worker's step.
      images_per_s: of all workers.
      busiest_gbit: on the busiest direction of the busiest link.
      bottleneck: where a step spends most of its time.
    """

    num_workers: int
    step_s: float
    images_per_s: float
    busiest_gbit: float
    bottleneck: str


def step_seconds(step: Step, spent: Mapping[str, float]) -> float:
    """A step by the seconds of each of its parts, some of which hide each other."""
    slower = 1 + spent.get(CORES, 0.0) / (step.software_s + step.compute_s)
    link_s = spent[LINK] + spent.get(SERVER_LINK, 0.0)
    software_s, compute_s = spent[SOFTWARE] * slower + spent.get(SERVER_CPU, 0.0), spent[COMPUTING] * slower
    return math.hypot(link_s, software_s) + compute_s - _hidden(step.hidden_share * compute_s, HIDING_LINK * link_s)


def _hidden(most_s: float, room_s: float) -> float:
    """A smooth minimum of what can hide and of the time that it can hide behind."""
    return most_s * room_s / (math.hypot(most_s, room_s) or 1.0)


def demands(step: Step, hosts: Hosts) -> dict[str, float]:
    """For each queue, the seconds that a step keeps it busy."""
    total, busiest = sum(step.server_bytes), max(step.server_bytes)
    return {
        OUT: hosts.seconds(busiest),
        INTO: hosts.seconds(busiest),
        SERVER_CPU: step.server_cpu_s * busiest / total / hosts.server_cores,
        CORES: 0.0 if hosts.shared_cores is None else step.cpu_s / hosts.shared_cores,
    }


def parameter_server(step: Step, hosts: Hosts, num_workers: int, block_steps: float | None = None) -> list[Prediction]:
    """The predictions for 1 to `num_workers` workers that step on their own.

    Args:
      step: of one worker.
      hosts: of workers and servers.
      num_workers: the most.
      block_steps: of each worker, before all of them begin together again; None for those of a training.
    """
    busy_s = demands(step, hosts)
    chances = dict.fromkeys(busy_s, 0.0)  # that another worker is found at a queue
    found = []
    for number in range(1, num_workers + 1):
        # No queue serves more than its time; the theory has nothing that hides behind a queue, and would undo this.
        least_s = number * max(busy_s.values())
        later_there_s = _there(step, busy_s, number, chances)
        later = _spent(step, busy_s, later_there_s)
        later_s = max(step_seconds(step, later), later_there_s[CORES], least_s)
        chances = {name: min(seconds / later_s, 1.0) for name, seconds in later_there_s.items()}

        first = _spent(step, busy_s, _there(step, busy_s, number, dict.fromkeys(busy_s, 1.0)))
        first_s = max(step_seconds(step, first), later_s)
        num_steps = max(1, int(BLOCK_S / later_s)) if block_steps is None else block_steps
        found.append(
            _prediction(
                step,
                number,
                step_s=later_s + (first_s - later_s) / num_steps,
                link_bytes=number * max(step.server_bytes),
                spent={name: seconds + (first[name] - seconds) / num_steps for name, seconds in later.items()},
            )
        )
    return found


def _there(step: Step, busy_s: Mapping[str, float], num_workers: int, chances: Mapping[str, float]) -> dict[str, float]:
    """The seconds of a step at each queue, if each other worker is found there with such a chance."""
    found = {}
    for name, seconds in busy_s.items():
        chance = chances[name]
        if name != CORES:  # a step waits for the last of the servers: who is at any of them is in its way
            chance = 1 - (1 - chance) ** step.num_even_servers
        found[name] = seconds * _crowd(num_workers - 1, chance, _room(step, name))
    return found


def _spent(step: Step, busy_s: Mapping[str, float], there_s: Mapping[str, float]) -> dict[str, float]:
    """The parts of a step that is at each queue for so long."""
    waiting_s = {name: seconds - busy_s[name] * _room(step, name) for name, seconds in there_s.items()}
    return {
        LINK: step.num_even_servers * (busy_s[OUT] + busy_s[INTO]),
        SERVER_LINK: waiting_s[OUT] + waiting_s[INTO],
        SOFTWARE: step.software_s,
        SERVER_CPU: waiting_s[SERVER_CPU],
        COMPUTING: step.compute_s,
        CORES: waiting_s[CORES],
    }


def _room(step: Step, queue: str) -> float:
    """The workers that a queue serves at a time as quickly as it would one, whose own link has all servers' bytes."""
    return step.num_even_servers if queue in (OUT, INTO) else 1.0


def _crowd(others: int, chance: float, room: float) -> float:
    """The mean of a worker and those of the others that are at a queue, each with such a chance; at least `room`."""
    below = range(min(others + 1, math.ceil(room - 1)))
    lacking = (math.comb(others, n) * chance**n * (1 - chance) ** (others - n) * (room - 1 - n) for n in below)
    return 1 + others * chance + sum(lacking)


def all_reduce(step: Step, hosts: Hosts, num_workers: int) -> Prediction:
    """The prediction for workers that step together, and pass sums of gradients round a ring.

    A part goes on when it has been added to the one that came, so links and the work for the wire do not hide each
    other. Of the computing the pass backward alone can hide: there is nothing to read.
    """
    link_bytes = 2 * (num_workers - 1) / num_workers * sum(step.server_bytes)  # each way, at the same time
    link_s, software_s = hosts.seconds(link_bytes), step.software_s if num_workers > 1 else 0.0
    work_s = software_s + step.compute_s
    crowded_s = max(0.0, num_workers * step.cpu_s / (hosts.shared_cores or math.inf) - work_s)
    compute_s = step.compute_s * (1 + crowded_s / (work_s or 1.0))
    return _prediction(
        step,
        num_workers,
        step_s=link_s + work_s + crowded_s - _hidden(step.hidden_share / 2 * compute_s, link_s),
        link_bytes=link_bytes,
        spent={LINK: link_s, SOFTWARE: software_s, COMPUTING: step.compute_s, CORES: crowded_s},
    )


def _prediction(
    step: Step, num_workers: int, *, step_s: float, link_bytes: float, spent: Mapping[str, float]
) -> Prediction:
    return Prediction(
        num_workers=num_workers,
        step_s=step_s,
        images_per_s=num_workers * step.images / step_s,
        busiest_gbit=link_bytes * 8e-9 / step_s,
        bottleneck=max(spent, key=lambda name: spent[name]),
    )


def pays_up_to(images_per_s: dict[int, float]) -> int:
    """The number of workers behind which no other twice as many train PAYING_GAIN times as many images a second.

    Args:
      images_per_s: by the number of workers, each twice the one before.
    """
    pairs = itertools.pairwise(images_per_s)
    paying = [more for now, more in pairs if images_per_s[more] >= PAYING_GAIN * images_per_s[now]]
    return max(paying, default=min(images_per_s))
