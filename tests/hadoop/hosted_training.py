"""A training on three hosts, what is done to their cables meanwhile, and what must be true at its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from tests.command import SMALL, Submission
from tests.hadoop.hosted import HostedHadoop
from tfos_job import storage
from tfos_job.errors import JobError
from tfos_job.layout import RunLayout, checkpoint_step

NUM_STEPS, SAVE_STEPS = 80, 10
PACE = "100mbit"
"""The network has 1.4 million parameters: 5.7 MB each way and step, which this cable holds up for half a second."""
BRIEF_S = 8
_EXECUTOR_MB = 1792
_DRIVER_MB = 512


class HostedTraining:
    """`submit train` with a worker and a parameter server, whose driver has a host for itself.

    The two have one each, unless only one of the hosts has called YARN in the second before they were started.
    Its cables are slow until something is done to them, so that it comes in the middle on every machine.
    """

    def __init__(self, hadoop: HostedHadoop, dataset: str, run: str) -> None:
        self._hadoop = hadoop
        self._run = run
        overhead_mb = hadoop.node_memory_mb - _EXECUTOR_MB - _DRIVER_MB + 1  # no executor finds room beside the driver
        self.command = Submission(
            *("train", "--environment", "none", "--dataset_dir", dataset, "--train_dir", run, *SMALL),
            *("--num_executors", 2, "--num_ps_tasks", 1, "--max_number_of_steps", NUM_STEPS),
            *("--save_steps", SAVE_STEPS, "--"),
            *("--driver-memory", f"{_DRIVER_MB}m", "--conf", f"spark.driver.memoryOverhead={overhead_mb}m"),
            *("--executor-memory", "512m", "--conf", f"spark.executor.memoryOverhead={_EXECUTOR_MB - 512}m"),
            *("--conf", "spark.yarn.maxAppAttempts=1"),
        )

    def report(self) -> dict[str, Any]:
        with contextlib.suppress(JobError):
            return storage.read_json(RunLayout(self._run).report)
        return {}

    def wait_for_checkpoint(self) -> None:
        """Until it trains and has a checkpoint."""
        self.command.wait_for_line("step 0 of")
        self._limit(PACE)
        self.command.wait_for_line(f"checkpoint {self._run}/checkpoints/step-")

    def _limit(self, rate: str) -> None:
        for host in self._hadoop.hosts:
            self._hadoop.rate(host, rate)

    def disturb(self, kind: str) -> dict[str, Any]:
        """Does it, and lets the training end; returns what was found, of which `error` is what should not be so."""
        hadoop = self._hadoop
        places = hadoop.places()
        found: dict[str, Any] = {"places": {role: places.get(role) for role in ("driver", "worker", "ps")}}
        if places["driver"] in (places["worker"], places["ps"]):
            return found | {"error": "a node is beside the driver"}
        began_s = time.monotonic()
        found |= _DISTURBANCES[kind](hadoop, places)
        if kind != "slow":
            self._limit("off")
        if "cut" in found:
            found["next_step_s"] = self._seconds_to_next_step(began_s)
            found["places_later"] = hadoop.places([host for host in hadoop.hosts if host != found["cut"]])
        found["exit_code"] = self.command.wait()
        found["num_attempts"] = len(self.report()["attempts"])
        return found | {"error": self._fault(kind, found) or None}

    def _seconds_to_next_step(self, began_s: float) -> float | None:
        """Until a second attempt has done a step, as far as its report tells, every five seconds; None without one."""

        def has_trained() -> bool:
            report = self.report()
            attempts = report.get("attempts", [])
            return len(attempts) > 1 and report["step"] > attempts[-1]["start_step"]

        with contextlib.suppress(AssertionError):  # it has ended: its exit code is looked at
            self.command.wait_until(has_trained)
            return round(time.monotonic() - began_s, 1)
        return None

    def _fault(self, kind: str, found: dict[str, Any]) -> str:
        """What is not as it should be at its end, in words."""
        if found["exit_code"] != 0:
            return f"ended with {found['exit_code']}: {self.command.stderr[-3000:]}"
        report = self.report()
        entries = storage.list_dir(RunLayout(self._run).checkpoints_dir)
        newest = max(step for entry in entries if (step := checkpoint_step(entry.name)) is not None)
        if (report["step"], newest) != (NUM_STEPS, NUM_STEPS):
            return f"ended at step {report['step']} of {NUM_STEPS} with the checkpoint of step {newest}"
        num_attempts, read = found["num_attempts"], sum(report["records_read"])
        if read != (counted := NUM_STEPS * report["batch_size"]):  # of all attempts: the checkpoint has the position
            return f"{read} records were read for the {counted} of {NUM_STEPS} steps"
        if kind == "slow" and num_attempts != 1:
            return f"a slow cable has made {num_attempts} attempts of one"
        return self._fault_of_restart(report, found["cut"]) if "cut" in found else ""

    def _fault_of_restart(self, report: dict[str, Any], cut: str) -> str:
        first, *later = report["attempts"]
        if not later or later[0]["start_step"] < SAVE_STEPS:
            return f"the second attempt did not go on from a checkpoint: {later}"
        if first["first_cause"]["host"] != cut:
            return f"{cut} was cut off, and {first['first_cause']} is blamed"
        hosts = {node["host"] for node in later[-1]["nodes"]}
        return f"an attempt after the cut has a node on {cut}" if cut in hosts else ""


def _cut(role: str) -> Callable[[HostedHadoop, dict[str, str]], dict[str, Any]]:
    def cut(hadoop: HostedHadoop, places: dict[str, str]) -> dict[str, Any]:
        hadoop.cut(places[role])
        return {"cut": places[role]}

    return cut


def _cut_briefly(hadoop: HostedHadoop, places: dict[str, str]) -> dict[str, Any]:
    hadoop.cut(places["worker"])
    time.sleep(BRIEF_S)
    hadoop.heal(places["worker"])
    return {"cut_briefly": places["worker"]}


def _reset(role: str, *, parent: bool = False) -> Callable[[HostedHadoop, dict[str, str]], dict[str, Any]]:
    def reset(hadoop: HostedHadoop, _: dict[str, str]) -> dict[str, Any]:
        process = hadoop.find(role)
        return {"reset": hadoop.reset(process.parent() if parent else process)}

    return reset


def _leave_slow(_: HostedHadoop, __: dict[str, str]) -> dict[str, Any]:
    return {"rate": PACE}


_DISTURBANCES: dict[str, Callable[[HostedHadoop, dict[str, str]], dict[str, Any]]] = {
    "worker": _cut("worker"),
    "ps": _cut("ps"),
    "brief": _cut_briefly,
    "reset_tensorflow": _reset("worker"),
    "reset_line": _reset("worker", parent=True),
    "slow": _leave_slow,
}
KINDS = tuple(_DISTURBANCES)
