"""The ends of phases whose deadline has passed: who is missing, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tfos_job.errors import NodeDiedError, ResourceError
from tfos_job.protocol.attempt_facts import AttemptFacts
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.topology import COORDINATOR, Task, Topology, counted, describe_missing


def registration(
    facts: AttemptFacts, topology: Topology, limit_s: float, executor_hosts: Sequence[str]
) -> ResourceError:
    """Some node has not called, or its TensorFlow server does not answer.

    Args:
      facts: of the attempt.
      topology: its nodes.
      limit_s: the deadline.
      executor_hosts: of each executor that Spark has, as far as that is known.
    """
    nodes = topology.nodes
    come = [task for task in nodes if task in facts.hellos]
    fact = f"{len(come)} of {counted(len(nodes), 'node')} registered within {limit_s:.0f} s"
    if absent := sorted(set(nodes) - set(come)):
        fact += f"; {describe_missing(nodes, come)} {'is' if len(absent) == 1 else 'are'} missing"
        fact += _idle_hosts(facts, come, executor_hosts)
    elif silent := [task for task in come if task not in facts.ready]:  # no node is ready before all have called
        fact += f"; the TensorFlow server of {places(facts, silent)} did not start"
    return ResourceError(
        fact, next_step=f"See whether the queue has room, or {_more_time('--start_timeout', 'registration', limit_s)}"
    )


def _idle_hosts(facts: AttemptFacts, come: Iterable[Task], executor_hosts: Sequence[str]) -> str:
    """The executors that no node has called from, in words."""
    idle = Counter(executor_hosts) - Counter(facts.hellos[task].host for task in come)
    return f" (no call came from the executor on {', '.join(sorted(idle.elements()))})" if idle else ""


def build(facts: AttemptFacts, limit_s: float) -> ResourceError:
    """The network is not on the nodes."""
    what = (
        f"the coordinator has been building the network for {limit_s:.0f} s"
        if COORDINATOR in facts.hellos
        else f"the coordinator did not call within {limit_s:.0f} s"
    )
    next_step = (
        "See in the stacks in report.json what it waits for, and whether every node reaches every other one; or "
        f"{_more_time('--start_timeout', 'build', limit_s)}"
    )
    return ResourceError(what, place=str(facts.process(COORDINATOR)), next_step=next_step)


def step(facts: AttemptFacts, limit_s: float) -> Failure:
    """Neither the coordinator nor a stager has said anything for so long. An attempt that stands still has failed."""
    phase = "first_step" if facts.step is None else "stall"
    cause = f"no step was finished for {limit_s:.0f} s, the {'first' if facts.step is None else 'next'} one is missing"
    if facts.step is not None:
        cause += f" after step {facts.step}"
    elif facts.notices:
        said = (f"{task} on host {facts.hellos[task].host}: {text}" for task, text in sorted(facts.notices.items()))
        cause += f"; last heard: {', '.join(said)}"
    more_time = _more_time("--stall_timeout", phase, limit_s)
    return Failure(
        Kind.LOST,
        cause,
        NodeDiedError.exit_code,
        next_step=f"If steps are really that slow {more_time}; else run train again to resume",
        process=facts.process(COORDINATOR),
    )


def places(facts: AttemptFacts, tasks: Iterable[Task]) -> str:
    """`ps:0 on H0, worker:1 on H1`."""
    return ", ".join(f"{task} on {facts.hellos[task].host}" for task in sorted(tasks))


def _more_time(flag: str, phase: str, limit_s: float) -> str:
    return f"raise {flag} or --deadlines {phase}={limit_s:.0f}"
