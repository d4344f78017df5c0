"""The application, from the spark-submit line to its end: its state, its progress, its results, its exit code."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfos_job.commands.registry import COMMANDS
from tfos_job.config.defaults import OUTCOMES
from tfos_job.host.results import to_json
from tfos_job.layout import join
from tfos_job.run import summary
from tfos_job.submit import follow, verdict, watch
from tfos_job.submit.application_state import Watched
from tfos_job.submit.spark_submit import Request

if TYPE_CHECKING:
    from tfos_job.submit.claim import Claim

log = logging.getLogger(__name__)

# Of a training's report, as they read in a line.
_PHASES = {
    "application": "settings",
    "containers": "executors and preflight",
    "registration": "registration",
    "build": "model build",
    "first_step": "first step",
    "backoff": "waits before restarts",
}


def run_on_yarn(
    request: Request,
    line: Sequence[str],
    environment: Mapping[str, str],
    *,
    patience: watch.Patience,
    began: float,
    uploaded: float,
    claim: Claim | None = None,
) -> int:
    """Runs spark-submit, follows the application to its end unless nobody waits for it, and prints its results.

    Args:
      request: what is submitted.
      line: the spark-submit line.
      environment: of spark-submit.
      patience: time limits of YARN.
      began: time at which the command began.
      uploaded: time at which everything that travels with the job was uploaded.
      claim: with `--run_id`, what records all this.
    """

    def run(on_change: Callable[[Watched], None]) -> Watched:
        return watch.run(
            line,
            environment,
            on_change=on_change,
            patience=patience,
            detach=not request.wait,
            when_stopped=COMMANDS[request.command].when_stopped,
            on_start=claim.started if claim is not None else lambda pid: None,
        )

    watched = _followed(request, run, claim)
    if not request.wait and watched.application:
        print(watched.application, flush=True)
        return 0
    return _conclude(watched, request, claim, lambda outcome: _phases(watched, outcome, request, began, uploaded))


def attach(
    request: Request, application: str, environment: Mapping[str, str], *, patience: watch.Patience, claim: Claim
) -> int:
    """As `run_on_yarn`, for an application that an earlier submission of the same run has submitted."""
    log.info("run %s is at work as %s, submitted before: nothing is submitted now", claim.run_id, application)
    claim.submitted(application)
    if not request.wait:
        print(application, flush=True)
        return 0

    def run(on_change: Callable[[Watched], None]) -> Watched:
        return watch.attach(
            application,
            environment,
            on_change=on_change,
            patience=patience,
            when_stopped=COMMANDS[request.command].when_stopped,
        )

    return _conclude(_followed(request, run, claim), request, claim, lambda outcome: "it was submitted before")


def tell(request: Request, claim: Claim) -> int:
    """Ends as the submission of the same run that has ended: with its results and its exit code."""
    record = claim.record
    assert record is not None
    assert record.exit_code is not None
    outcome = follow.read_outcome(join(request.hdfs_dir, OUTCOMES), record.application)
    if outcome is None:
        log.warning("The results of %s are not in %s any more", record.application, request.hdfs_dir)
    _print_results(outcome)
    if record.exit_code == 0:
        log.info("run %s is done already, by %s: nothing is submitted", claim.run_id, record.application)
        return 0
    error = verdict.error_of(record.exit_code, record.error)
    claim.ended(record.application, error)
    raise error


def _followed(request: Request, run: Callable[[Callable[[Watched], None]], Watched], claim: Claim | None) -> Watched:
    """Calls `run` with what is to be done at each new state of the application."""
    train_dir = request.config.train_dir if request.submission.trains else None
    followers: list[follow.Follower] = []

    def on_change(watched: Watched) -> None:
        _say_state(watched, request)
        if watched.application and claim is not None:
            claim.submitted(watched.application)
        if watched.application and not followers and request.wait:
            outcome_dir = join(request.hdfs_dir, OUTCOMES)
            followers.append(follow.Follower(outcome_dir, watched.application, train_dir).__enter__())

    try:
        watched = run(on_change)
    finally:
        for follower in followers:
            follower.__exit__()
    if watched.application and claim is not None:  # one that nobody follows may have no new state
        claim.submitted(watched.application)
    return watched


def _say_state(watched: Watched, request: Request) -> None:
    if watched.state in ("", "ACCEPTED") and "said" not in watched.times and watched.application:
        watched.times["said"] = time.time()
        log.info(
            "%s is in queue %s; its log: yarn logs -applicationId %s",
            watched.application,
            request.queue,
            watched.application,
        )
    if watched.state:
        url = watched.details.get("tracking URL", "")
        log.info("%s %s%s", watched.application, watched.state, f" {url}" if watched.state == "RUNNING" else "")


def _conclude(
    watched: Watched, request: Request, claim: Claim | None, phases: Callable[[dict[str, Any] | None], str]
) -> int:
    """Prints results and phases; raises the error of the application's end."""
    outcome = (
        follow.read_outcome(join(request.hdfs_dir, OUTCOMES), watched.application) if watched.application else None
    )
    error = verdict.judge(watched.end(request.command), outcome)
    if claim is not None and watched.application:
        error = claim.judge(watched, outcome)
    _print_results(outcome)
    if watched.application:
        log.info("%s", phases(outcome))
    if claim is not None and watched.application:
        claim.ended(watched.application, error)
    if error is not None:
        raise error
    return 0


def _print_results(outcome: Mapping[str, Any] | None) -> None:
    for result in (outcome or {}).get("results", []):
        print(to_json(result, sys.stdout.encoding), flush=True)


def _phases(watched: Watched, outcome: dict[str, Any] | None, request: Request, began: float, uploaded: float) -> str:
    """Seconds of each phase, from the command to the first step; of several attempts, all of them together."""
    now = time.time()
    submitted = watched.times.get("submitted", now)
    phases = {"prepare and upload": uploaded - began, "submit": submitted - uploaded}
    if outcome is not None:
        phases["driver's container"] = outcome["started_s"] - submitted
    if request.submission.trains:
        report = follow.read_report(request.config.train_dir)
        if report.get("application") == watched.application:
            seconds = summary.phases_of(report, watched.application)
            phases |= {name: seconds[phase] for phase, name in _PHASES.items() if phase in seconds}
    text = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())
    return f"{now - began:.1f} s in all: {text}"
