"""Milliseconds that a cluster adds to a step on links of known speed, over the same step without a cluster, in one run.

Parameter server and worker are on hosts of their own: network namespaces whose cables a token bucket filter limits.
They are nodes of `tfos-job train` (Spark, TensorFlowOnSpark's rendezvous, supervisors), directed by its engine; the
peer is plain Keras in one process, which shares nothing with them but the cores. Both stay alive and take turns in
blocks of steps: in each round one block of plain steps and one of the cluster's for each speed of the links. Each
network is also measured as one of the same variables that computes next to nothing, so that the wire is all there is.

    python benchmarks/wire.py                                     as root: a quarter of an hour
    python benchmarks/wire.py --quick                             a try: one network, one speed, two rounds
    python benchmarks/wire.py -- --num_ps_tasks 2 --num_executors 3
    python benchmarks/wire.py -- --num_executors 3 -- --num_ps_tasks 0 --num_executors 2
    python benchmarks/wire.py -- --seed 1 -- --seed 2             flags of `tfos-job train`; each set is measured

Each network, batch size and speed is a JSON object on a line of stdout; benchmarks/README.md says what is in it, and
has dated results. Exit code 69 if this host or user cannot make namespaces; nothing is left behind, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for scripts.hadoop

from pyspark import SparkContext
from steps import hosts, nodes
from steps.cases import NETWORKS, Case, cases_of, split_at_dashes
from steps.noise import Noise, fresh_plan
from steps.sides import Cluster, Result, Side, build_cluster_side, build_plain_side, started, versions

from scripts.hadoop.problem import HadoopError
from tfos_job.errors import JobError
from tfos_job.host import signals
from tfos_job.protocol.topology import WORKER, Topology, topology_of
from tfos_job.run.worker_inputs import worker_inputs

_WARM_UP_STEPS = 2
_MAX_BLOCK_STEPS = 50
_TCP_S = 1.0


@dataclasses.dataclass(frozen=True)
class Blocks:
    """A case at one speed: what each round has measured.

    Attributes:
      gbit: the limit of each direction of each cable; None for no limit.
      plain, cluster: the blocks of both sides.
      carried: for each block of the cluster, bytes to and from the host of each task.
    """

    gbit: float | None
    plain: list[Result]
    cluster: list[Result]
    carried: list[dict[str, tuple[int, int]]]

    def account(self, steps_at_once: int, push_every: int, *, is_ring: bool) -> dict[str, Any]:
        plain_ms = [_step_ms(result) * push_every for result in self.plain]
        cluster_ms = [_step_ms(result) * steps_at_once for result in self.cluster]
        added_ms = [theirs - ours for theirs, ours in zip(cluster_ms, plain_ms, strict=True)]
        tasks = {
            task: [round(_median_share(self.carried, self.cluster, task, way)) for way in (0, 1)]
            for task in self.carried[0]
        }
        workers = [both for task, both in tasks.items() if task.startswith(f"{WORKER}:")]
        # Variables come before gradients go; on a ring each worker sends while it receives.
        on_link = max(map(max, workers)) if is_ring else sum(map(sum, workers))
        link_ms = None if self.gbit is None else on_link * 8 / self.gbit / 1e6
        return {
            "gbit": self.gbit,
            "added_ms": round(statistics.median(added_ms), 1),
            "cluster_ms": round(statistics.median(cluster_ms), 1),
            "plain_ms": round(statistics.median(plain_ms), 1),
            "update_ms": round(statistics.median(result.update_s / result.steps * 1e3 for result in self.cluster), 1),
            "cpu_ms": round(statistics.median(map(_cpu_ms, self.cluster)), 1),
            "plain_cpu_ms": round(statistics.median(_cpu_ms(result) * push_every for result in self.plain), 1),
            "link_ms": link_ms and round(link_ms, 1),
            "added_over_link": link_ms and round(statistics.median(added_ms) / link_ms, 3),
            "bytes_to_workers": sum(to for to, _ in workers),
            "bytes_from_workers": sum(back for _, back in workers),
            "bytes_to_and_from": tasks,
            "block_steps": self.cluster[0].steps,
            "added_ms_rounds": [round(value, 1) for value in added_ms],
        }


def _step_ms(result: Result) -> float:
    return result.seconds / result.steps * 1e3


def _cpu_ms(result: Result) -> float:
    return result.machine_cpu_s / result.steps * 1e3


def _run(side: Side, num_steps: int) -> Result:
    before_s = hosts.processor_s()
    return dataclasses.replace(side.run(num_steps), machine_cpu_s=hosts.processor_s() - before_s)


def _median_share(carried: list[dict[str, tuple[int, int]]], blocks: list[Result], task: str, way: int) -> float:
    return statistics.median(each[task][way] / block.steps for each, block in zip(carried, blocks, strict=True))


class Bench:
    """The hosts, Spark on them, and the records; measures case after case."""

    def __init__(self, args: argparse.Namespace, sc: SparkContext, there: hosts.Hosts, folder: Path) -> None:
        self._args = args
        self._sc = sc
        self._hosts = there
        self._folder = folder
        self._noise = Noise(folder, args.num_classes, seed=0)

    def measure(self, case: Case) -> Iterator[dict[str, Any]]:
        """The figures of a case at each speed."""
        config = case.config(self._folder)
        data = self._noise.data(config)
        plan, inputs = fresh_plan(config, data), worker_inputs(config, data, (0,) * config.num_workers)
        topology = topology_of(config, None)
        steps_at_once = config.num_workers if config.num_ps_tasks else 1
        self._hosts.limit(None)  # nothing is measured before the first block
        with contextlib.ExitStack() as stack:
            say(f"{case}: starting {topology}")
            cluster = stack.enter_context(nodes.nodes_up(self._sc, topology, inputs))
            sides = []
            # One after the other: two networks that are built at once would only wait for each other.
            for build, given in ((build_cluster_side, cluster), (build_plain_side, inputs[0])):
                say(f"{case}: building the {'plain' if sides else 'cluster'} side and warming it up")
                side = started(stack, build, plan, given)
                side.wait_until_built()
                side.run(_WARM_UP_STEPS * steps_at_once)
                sides.append(side)
            for blocks in self._rounds(case, cluster, *sides, steps_at_once=steps_at_once):
                yield {
                    "network": case.network,
                    "computes": case.computes,
                    "batch_size": case.batch_size,
                    "flags": " ".join(case.flags),
                    "wire_dtype": config.wire_dtype,
                    **blocks.account(steps_at_once, config.push_every, is_ring=not config.num_ps_tasks),
                }

    def _rounds(
        self, case: Case, cluster: Cluster, cluster_side: Side, plain_side: Side, steps_at_once: int
    ) -> list[Blocks]:
        steps = self._block_steps(cluster, cluster_side, steps_at_once)
        plain_s = plain_side.run(1).seconds
        plain_steps = _clamped(self._args.block_s / plain_s)
        blocks = [Blocks(gbit, [], [], []) for gbit in self._args.gbit]
        for number in range(self._args.rounds):
            expected_s = plain_steps * plain_s + sum(count * step_s for count, step_s in steps.values())
            say(f"{case}: round {number + 1} of {self._args.rounds}, {expected_s:.0f} s")
            if number % 2 == 0:
                plain = _run(plain_side, plain_steps)
            for each in reversed(blocks) if number % 2 else blocks:
                self._hosts.limit(each.gbit)
                before = self._hosts.carried(cluster)
                each.cluster.append(_run(cluster_side, steps[each.gbit][0]))
                after = self._hosts.carried(cluster)
                each.carried.append(
                    {task: (after[task][0] - to, after[task][1] - back) for task, (to, back) in before.items()}
                )
            if number % 2:
                plain = _run(plain_side, plain_steps)
            for each in blocks:
                each.plain.append(plain)
        return blocks

    def _block_steps(self, cluster: Cluster, side: Side, steps_at_once: int) -> dict[float | None, tuple[int, float]]:
        """For each speed the steps of a block, and the seconds of one, by the time and bytes of one without a limit."""
        before = self._hosts.carried(cluster)
        block = side.run(steps_at_once)
        after = self._hosts.carried(cluster)
        busiest = max(sum(after[task]) - sum(before[task]) for task in before)
        found = {}
        for gbit in self._args.gbit:
            step_s = (block.seconds + (busiest * 8e-9 / gbit if gbit else 0)) / steps_at_once
            found[gbit] = (steps_at_once * _clamped(self._args.block_s / step_s / steps_at_once), step_s)
        return found


def _clamped(steps: float) -> int:
    return max(1, min(_MAX_BLOCK_STEPS, round(steps)))


def say(text: str) -> None:
    print(f"wire: {text}", file=sys.stderr, flush=True)


def measure(args: argparse.Namespace, cases: Sequence[Case]) -> None:
    """Prints a line for each case and speed."""
    about = {"cores": os.cpu_count(), "load_average_at_start": round(os.getloadavg()[0], 2), "versions": versions()}
    with tempfile.TemporaryDirectory(prefix="tfos_job-benchmark-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        configs = [case.config(folder) for case in cases]
        num_hosts = max(config.num_executors for config in configs)
        there, network = stack.enter_context(hosts.made(folder, num_hosts))
        tcp_gbit = {}
        for gbit in args.gbit:
            say(f"measuring TCP alone on a link of {_speed(gbit)}")
            there.limit(gbit)
            tcp_gbit[gbit] = round(there.tcp_gbit(_TCP_S), 3)
        there.limit(None)
        say(f"starting Spark on {num_hosts} hosts behind {network.bridge}, some ten seconds each on a quiet machine")
        sc = stack.enter_context(hosts.spark_on(network, folder, Topology(1, num_hosts - 1)))
        bench = Bench(args, sc, there, folder)
        for number, case in enumerate(cases, start=1):
            say(f"case {number} of {len(cases)}")
            for found in bench.measure(case):
                line = {"benchmark": "wire", **found, "tcp_gbit": tcp_gbit[found["gbit"]], **about}
                print(json.dumps(line), flush=True)
        say("ending the hosts and what runs on them")


def _speed(gbit: float | None) -> str:
    return "no known speed" if gbit is None else f"{gbit:g} Gbit/s"


def _gbit(word: str) -> float | None:
    return None if word == hosts.UNLIMITED else float(word)


def parse_args(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="milliseconds a step that a cluster adds on links of known speed",
        epilog="What follows `--` are flags of tfos-job train; after another `--`, another set of them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="some of them")
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[32, 128], help="images a step")
    parser.add_argument(
        "--gbit", nargs="+", type=_gbit, default=[0.1, 1.0, 10.0], help="Gbit/s of the links; off: no limit"
    )
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each side and speed")
    parser.add_argument("--block_s", type=float, default=2.0, help="seconds of a block, of at least one step")
    parser.add_argument("--num_classes", type=int, default=3755, help="width of the network's last layer")
    parser.add_argument("--quick", action="store_true", help="hanzi_net, batch 32, 1 Gbit/s, two rounds")
    args = parser.parse_args(words)
    if args.quick:
        args.networks, args.batch_sizes, args.gbit, args.rounds = ["hanzi_net"], [32], [1.0], 2
    return args


@contextlib.contextmanager
def stopped_once() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises `Stopped`; others do not disturb what then sees to it that nothing is left."""

    def stop(signum: int, _: Any) -> None:
        signals.restore(dict.fromkeys(heard, signal.SIG_IGN))
        raise signals.Stopped(signum)

    heard = [each for each in signals.SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = signals.install(stop, heard)
    try:
        yield
    finally:
        signals.restore(before)


def main() -> int:
    own, sets_of_flags = split_at_dashes(sys.argv[1:])
    args = parse_args(own)
    try:
        with stopped_once():
            hosts.require_rights()
            measure(args, cases_of(args.networks, args.batch_sizes, sets_of_flags))
    except (JobError, HadoopError, KeyboardInterrupt) as error:
        stopped = signals.interruption(error, "Nothing is left behind")
        print(f"wire: {stopped or error}", file=sys.stderr)
        return (stopped or error).exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
