"""A submission to Kubernetes, from the spark-submit line to its end: pod, progress, results, exit code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence

from tfos_job.commands.registry import COMMANDS
from tfos_job.config.defaults import OUTCOMES
from tfos_job.host.results import to_json
from tfos_job.layout import join
from tfos_job.submit import follow, pod_verdict, pod_watch, spark_folder
from tfos_job.submit.driver_pod import DriverPod
from tfos_job.submit.spark_submit import Kubernetes, Request

log = logging.getLogger(__name__)


def add_flags(group: argparse._ArgumentGroup) -> None:
    """Adds the flags that belong to Kubernetes."""
    add = group.add_argument
    add("--image", default="", help="an image with this package in /opt/tfos_job and its Python")
    add("--namespace", default="", help="the pods' namespace")
    add("--service_account", default="", help="the driver's service account")
    for role, whose in (("driver", "the driver's"), ("executor", "the executors'")):
        add(
            f"--{role}_pod_template",
            default="",
            metavar="FILE",
            help=f"{whose} pod template (default: spark/kubernetes/{role}.yaml of this package)",
        )
    add("--gpu_vendor", default="nvidia.com", help="of the GPUs (default: nvidia.com)")


def options_of(given: argparse.Namespace) -> Kubernetes:
    """The values of `add_flags`, with this package's pod templates where no others are given."""
    values = {name: getattr(given, name) for name in Kubernetes.__dataclass_fields__}
    for role in ("driver", "executor"):
        name = f"{role}_pod_template"
        values[name] = values[name] or str(spark_folder.pod_template(role))
    return Kubernetes(**values)


def run(request: Request, line: Sequence[str], environment: Mapping[str, str], *, patience: pod_watch.Patience) -> int:
    """Runs spark-submit, follows the driver's pod to its end unless nobody waits for it, and prints its results.

    Args:
      request: what is submitted.
      line: the spark-submit line.
      environment: of spark-submit.
      patience: time limits of Kubernetes.
    """
    outcome_dir = join(request.hdfs_dir, OUTCOMES) if request.hdfs_dir else ""
    train_dir = request.config.train_dir if request.submission.trains else None
    followers: list[follow.Follower] = []

    def on_change(pod: DriverPod) -> None:
        _say_state(pod)
        if outcome_dir and pod.application and not followers and request.wait:
            followers.append(follow.Follower(outcome_dir, pod.application, train_dir).__enter__())

    try:
        pod, code = pod_watch.run(
            line,
            environment,
            on_change=on_change,
            patience=patience,
            detach=not request.wait,
            when_stopped=COMMANDS[request.command].when_stopped,
        )
    finally:
        for follower in followers:
            follower.__exit__()
    if not request.wait and pod.name:
        sys.stdout.write(f"{pod.submission}\n")
        sys.stdout.flush()
        return 0
    return _conclude(pod, code, outcome_dir, request.master)


def _say_state(pod: DriverPod) -> None:
    driver = pod.driver
    node = f" on {pod.node}" if pod.node else ""
    why = f" ({driver.reason})" if driver and driver.reason else ""
    log.info("%s %s%s%s", pod.submission, "deleted" if pod.is_gone else pod.phase, node, why)


def _conclude(pod: DriverPod, code: int, outcome_dir: str, master: str) -> int:
    outcome = follow.read_outcome(outcome_dir, pod.application) if outcome_dir and pod.application else None
    error = pod_verdict.judge(pod, code, outcome, place=master)
    for result in (outcome or {}).get("results", []):
        sys.stdout.write(f"{to_json(result, sys.stdout.encoding)}\n")
    sys.stdout.flush()
    if error is not None:
        raise error
    return 0
