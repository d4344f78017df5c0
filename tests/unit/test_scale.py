"""benchmarks/scale.py: its model as functions, and the program on lines as wire.py prints them."""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def step(**changes: Any) -> Any:
    from steps.scaling import Step

    values = {
        "images": 32,
        "compute_s": 0.04,
        "server_bytes": (84e6,),
        "software_s": 0.1,
        "server_cpu_s": 0.1,
        "cpu_s": 0.2,
    }
    return Step(**{**values, **changes})


def hosts(**changes: Any) -> Any:
    from steps.scaling import Hosts

    return Hosts(**{"link_gbit": 10.0, "server_cores": 8, **changes})


def test_one_worker_takes_the_sum_of_its_parts() -> None:
    from steps.scaling import HIDDEN_COMPUTE, LINK_SHARE, parameter_server

    (found,) = parameter_server(step(), hosts(link_gbit=math.inf), 1)
    assert found.step_s == pytest.approx(0.1 + 0.04)
    assert found.images_per_s == pytest.approx(32 / 0.14)
    # On a slow link the work for it counts no more, and of the computing what does not hide.
    (found,) = parameter_server(step(), hosts(link_gbit=0.01), 1)
    link_s = 2 * 84e6 * 8e-9 / 0.01 / LINK_SHARE
    assert found.step_s == pytest.approx(link_s + (1 - HIDDEN_COMPUTE) * 0.04, rel=1e-4)
    assert found.busiest_gbit == pytest.approx(0.005 * LINK_SHARE, rel=1e-3)  # half of the time in each direction


STEPS = [
    {},
    {"compute_s": 1.0},
    {"compute_s": 0.0, "software_s": 0.01, "server_cpu_s": 0.001},
    {"server_bytes": (80e6, 4e6)},
    {"server_bytes": (21e6,) * 4},
    {"server_cpu_s": 4.0, "software_s": 4.0},
]
HOSTS = [{}, {"link_gbit": 1.0}, {"link_gbit": 100.0, "server_cores": 2}, {"shared_cores": 2, "server_cores": math.inf}]


@pytest.mark.parametrize("where", HOSTS, ids=str)
@pytest.mark.parametrize("what", STEPS, ids=str)
def test_throughput_rises_to_the_bottlenecks_bound_and_never_above(what: Any, where: Any) -> None:
    from steps.scaling import demands, parameter_server

    bound = 32 / max(demands(step(**what), hosts(**where)).values())
    found = [each.images_per_s for each in parameter_server(step(**what), hosts(**where), 200, math.inf)]
    assert max(found) <= bound * (1 + 1e-9)
    assert all(more >= fewer * (1 - 1e-9) for fewer, more in itertools.pairwise(found))
    assert all(images <= number * found[0] * (1 + 1e-9) for number, images in enumerate(found, start=1))
    # Both links to the only server are soon full; steps that wait for several keep each other together.
    assert found[-1] > (0.95 if len(step(**what).server_bytes) == 1 else 0.5) * bound


def test_workers_that_begin_together_wait_for_each_other_at_first() -> None:
    from steps.scaling import demands, parameter_server

    what, where = step(compute_s=0.0, software_s=1e-6, server_cpu_s=0.0), hosts()
    one_way_s = max(demands(what, where).values())
    by_block = {
        block: parameter_server(what, where, 4, block)[-1].step_s / one_way_s for block in (1, 2, 4, 100, math.inf)
    }
    assert by_block[1] == pytest.approx(2 * 4, rel=1e-3)  # all read, then all send
    assert by_block[math.inf] == pytest.approx(4 + 2 - 1, rel=1e-3)  # two queues in balance
    assert list(by_block.values()) == sorted(by_block.values(), reverse=True)
    # A training's blocks are of 1.5 s, and of at least one step.
    assert parameter_server(what, hosts(link_gbit=0.1), 4) == parameter_server(what, hosts(link_gbit=0.1), 4, 1)


class Simulation:
    """Workers whose every byte goes over their own link and a server's, which connections share unevenly."""

    def __init__(self, num_workers: int, num_servers: int, compute_s: float, seed: int) -> None:
        self._random = random.Random(seed)
        self._servers = range(num_servers)
        self._workers = range(num_workers)
        self._compute_s = compute_s

    def block_s(self, num_steps: int) -> float:
        """Of a number of steps for each worker, of one second of a link in each direction."""
        seconds, left = 0.0, num_steps * len(self._workers)
        doing: dict[int, tuple[str, dict[int, list[float]]]] = {}
        while True:
            for worker in self._workers:
                phase, flows = doing.get(worker, ("into", {}))
                if any(rest > 1e-9 for rest, _ in flows.values()):
                    continue
                if phase == "computes":
                    doing[worker] = "into", self._flows()
                elif phase == "out":
                    doing[worker] = "computes", {-1: [self._compute_s, 1.0]}
                elif left:
                    left -= 1
                    doing[worker] = "out", self._flows()
                else:
                    doing.pop(worker, None)
            if not doing:
                return seconds
            rates = self._rates(doing)
            passed_s = min(doing[worker][1][server][0] / rate for (worker, server), rate in rates.items() if rate)
            for (worker, server), rate in rates.items():
                doing[worker][1][server][0] -= rate * passed_s
            seconds += passed_s

    def _flows(self) -> dict[int, list[float]]:
        """For each server what is left to carry, and the connection's weight."""
        return {server: [1 / len(self._servers), self._random.lognormvariate(0, 0.3)] for server in self._servers}

    def _rates(self, doing: dict[int, tuple[str, dict[int, list[float]]]]) -> dict[tuple[int, int], float]:
        """By weights, each as much as the fullest of its two links leaves it."""
        rates, weights, room = {}, {}, {}
        for worker, (phase, flows) in doing.items():
            for server, (rest, weight) in flows.items():
                if phase == "computes":
                    rates[worker, server] = 1.0
                elif rest > 1e-9:
                    weights[worker, server] = weight
                    room[phase, "worker", worker] = room[phase, "server", server] = 1.0
        while weights:
            on = {
                link: [
                    each for each in weights if each[link[1] == "server"] == link[2] and doing[each[0]][0] == link[0]
                ]
                for link in room
            }
            levels = {link: room[link] / sum(weights[each] for each in found) for link, found in on.items() if found}
            fullest = min(levels, key=lambda link: levels[link])
            for worker, server in on[fullest]:
                rate = rates[worker, server] = weights.pop((worker, server)) * levels[fullest]
                phase = doing[worker][0]
                for link in ((phase, "worker", worker), (phase, "server", server)):
                    room[link] = max(0.0, room[link] - rate)
        return rates


@pytest.mark.parametrize("block_steps", [1, 2, 8])
@pytest.mark.parametrize("compute_s", [0.05, 1.0])
@pytest.mark.parametrize(("num_workers", "num_servers"), [(2, 1), (4, 1), (2, 2), (4, 2)])
def test_it_agrees_with_a_simulation(
    num_workers: int, num_servers: int, compute_s: float, block_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steps import scaling

    monkeypatch.setattr(scaling, "HIDDEN_COMPUTE", 0.0)  # one thing after the other
    what = step(compute_s=compute_s, server_bytes=(1e9 / num_servers,) * num_servers, software_s=1e-6, server_cpu_s=0.0)
    where = hosts(link_gbit=8 / scaling.LINK_SHARE)
    found_s = scaling.parameter_server(what, where, num_workers, block_steps)[-1].step_s
    simulated_s = [
        Simulation(num_workers, num_servers, compute_s, seed).block_s(block_steps) / block_steps for seed in range(5)
    ]
    assert found_s == pytest.approx(statistics.mean(simulated_s), rel=0.15)


def test_the_bottleneck_is_named() -> None:
    from steps import scaling

    def of(num_workers: int, what: Any, **where: Any) -> str:
        return scaling.parameter_server(step(**what), hosts(**where), num_workers)[-1].bottleneck

    assert of(1, {"compute_s": 9}) == scaling.COMPUTING
    assert of(1, {}, link_gbit=0.1) == scaling.LINK
    assert of(64, {}) == scaling.SERVER_LINK
    assert of(64, {"server_cpu_s": 9}) == scaling.SERVER_CPU
    assert of(64, {}, link_gbit=math.inf, shared_cores=2) == scaling.CORES


def test_another_server_helps_as_far_as_it_takes_bytes_from_the_first() -> None:
    from steps import figures
    from steps.scaling import demands, parameter_server

    variables = figures.variables_of("chinese_rec", 64, 3755, "float32")

    def bound_s(num_ps_tasks: int, ps_placement: str) -> float:
        parts = figures.server_bytes(variables, num_ps_tasks, ps_placement)
        return max(demands(step(server_bytes=parts), hosts()).values())

    assert bound_s(4, "partitioned") == pytest.approx(bound_s(1, "partitioned") / 4, rel=0.01)
    # One kernel is four fifths of all; and of three servers the first has both large ones.
    assert bound_s(4, "round_robin") > 0.79 * bound_s(1, "round_robin")
    assert bound_s(3, "round_robin") > 0.99 * bound_s(1, "round_robin")
    # One worker has all bytes on its own link, however many servers send them.
    whole, parts = (figures.server_bytes(variables, number, "partitioned") for number in (1, 8))
    times = [parameter_server(step(server_bytes=each, server_cpu_s=0), hosts(), 1)[0].step_s for each in (whole, parts)]
    assert times[0] == pytest.approx(times[1])


def test_half_the_bytes_and_a_push_of_several_batches_are_worth_what_they_save() -> None:
    from steps import figures
    from steps.scaling import parameter_server

    plain, half = (figures.variables_of("hanzi_net", 64, 3755, wire) for wire in ("float32", "bfloat16"))
    parts = [figures.server_bytes(each, 1, "partitioned") for each in (plain, half)]
    assert parts[1][0] == pytest.approx(parts[0][0] / 2, rel=0.01)
    assert figures.software_seconds(half) < figures.software_seconds(plain)
    slow = [parameter_server(step(server_bytes=each), hosts(link_gbit=0.1), 8)[-1] for each in parts]
    assert slow[1].images_per_s == pytest.approx(2 * slow[0].images_per_s, rel=0.1)
    often, seldom = (
        parameter_server(step(images=32 * n, num_batches=n, compute_s=0.04 * n), hosts(link_gbit=0.1), 8)[-1]
        for n in (1, 4)
    )
    assert seldom.images_per_s == pytest.approx(4 * often.images_per_s, rel=0.1)


def test_all_reduce_steps_together() -> None:
    from steps.scaling import HIDDEN_COMPUTE, LINK_SHARE, all_reduce

    alone, many = (all_reduce(step(), hosts(link_gbit=0.1), number) for number in (1, 64))
    assert (alone.step_s, alone.busiest_gbit) == (0.04, 0)
    link_s = 2 * 63 / 64 * 84e6 * 8e-9 / 0.1 / LINK_SHARE
    assert many.step_s == pytest.approx(link_s + 0.1 + (1 - HIDDEN_COMPUTE / 2) * 0.04, rel=1e-5)
    assert many.images_per_s == pytest.approx(64 * 32 / many.step_s)
    assert many.busiest_gbit == pytest.approx(0.1 * LINK_SHARE, rel=0.02)
    crowded = all_reduce(step(), hosts(link_gbit=math.inf, shared_cores=2), 64)
    assert crowded.step_s == pytest.approx(64 * 0.2 / 2)


def test_more_workers_pay_until_a_doubling_gains_too_little() -> None:
    from steps.scaling import pays_up_to

    assert pays_up_to({1: 100, 2: 190, 4: 240, 8: 280, 16: 290}) == 4
    assert pays_up_to({1: 100, 2: 119, 4: 130}) == 1
    assert pays_up_to({1: 100, 2: 80, 4: 160, 8: 300, 16: 310}) == 8  # an all-reduce
    assert pays_up_to({1: 100, 2: 200, 4: 400}) == 4


def line(network: str, computes: bool, gbit: float | None, flags: str, cluster_ms: float, cpu_ms: float) -> str:
    values = {"network": network, "computes": computes, "batch_size": 32, "gbit": gbit, "flags": flags, "cores": 2}
    values["block_steps"] = 320
    return json.dumps({**values, "cluster_ms": cluster_ms, "cpu_ms": cpu_ms})


def scale_py(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "scale.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_check_takes_figures_from_one_worker_without_a_limit_and_predicts_all_else(tmp_path: Path) -> None:
    rows = [
        line("hanzi_net", False, None, "", 30, 45),
        line("hanzi_net", True, None, "", 80, 145),
        line("hanzi_net", False, 0.001, "", 8 * 2 * 8.73 / 0.956e-3, 45),
        line("hanzi_net", True, None, "--num_ps_tasks 1 --num_executors 33", 145 / 2 * 32, 145),
        line("chinese_rec", True, 1.0, "", 1400, 300),  # it lacks the figures of the network alone
        line("chinese_rec", True, None, "", 300, 500),
    ]
    (tmp_path / "wire.jsonl").write_text("\n".join(rows), "utf-8")
    done = scale_py("--check", str(tmp_path / "wire.jsonl"))
    found = json.loads(done.stdout)
    assert len(found["rows"]) == 2
    assert found["worst_error"] < 0.05
    assert f"worst {found['worst_error']:.1%}" in done.stderr

    (tmp_path / "wire.jsonl").write_text(rows[0], "utf-8")
    done = scale_py("--check", str(tmp_path / "wire.jsonl"))
    assert (done.returncode, done.stdout) == (65, "")
    assert "nothing can be predicted" in done.stderr


def test_it_says_how_many_workers_pay(tmp_path: Path) -> None:
    done = scale_py("--network", "chinese_rec", "--compute_ms", "40", "--link_gbit", "1", "--batch_size", "32")
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["pays_up_to"]) == {"1 PS", "2 PS", "4 PS", "8 PS", "all_reduce"}
    assert found["pays_up_to"]["1 PS"] < found["pays_up_to"]["8 PS"]
    assert len(found["rows"]) == 5 * 7
    assert "More workers pay up to" in done.stderr
    assert scale_py("--network", "chinese_rec").returncode == 2
