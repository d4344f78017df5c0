"""The flags of `tfos-job submit`, beside those of the command that is submitted."""

from __future__ import annotations

import argparse

from tfos_job.commands import correction
from tfos_job.commands.parser import FlagParser
from tfos_job.commands.registry import COMMANDS, SUBMISSIONS, SUBMIT
from tfos_job.config.values import either
from tfos_job.errors import FlagError
from tfos_job.submit import on_kubernetes


def make_parser() -> FlagParser:
    made = FlagParser(
        prog=f"tfos-job {SUBMIT}",
        usage=f"tfos-job {SUBMIT} COMMAND [flags of the command] [flags below] [-- flags of spark-submit]",
        description="Submits a command to a cluster, waits, and ends with the job's own exit code.",
        epilog=f"COMMAND is one of {', '.join(SUBMISSIONS)}; its flags: `tfos-job COMMAND --help`. "
        "docs/operations.md has the settings that are set, and why.",
    )
    made.add_argument(
        "command", metavar="COMMAND", choices=SUBMISSIONS, type=_submitted, help="what to submit: see below"
    )
    add_flags(made)
    return made


def add_flags(made: argparse.ArgumentParser) -> None:
    """Adds the flags beside those of the command that is submitted."""
    add = made.add_argument
    add("--master", metavar="yarn|k8s://URL", help="the cluster (default: yarn)")
    queues = "".join(f"{it.queue} for {name}, " for name, it in SUBMISSIONS.items() if it.queue != "default")
    add("--queue", help=f"YARN's queue (default: {queues}default for all else)")
    add(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="print the exact spark-submit line and, for `train`, on stderr what the job would do; change nothing",
    )
    add("--detach", action="store_true", help="do not wait: print the application's id and end")
    add(
        "--run_id",
        metavar="WORD",
        help="on YARN: the name of this work, such as the night's date; the same command with it again follows what is "
        "at work and tells what has ended, and starts nothing twice",
    )
    add("--stage", metavar="WORD", help="with --run_id: a name for one of several of a run (default: the command's)")
    add(
        "--environment",
        default="auto",
        metavar="auto|none|URL",
        help="the containers' Python: `auto` packs this one and sends it along, `none` takes the path of this one on "
        "every node, URL is an archive with bin/python in it (default: auto)",
    )
    add("--hdfs_dir", help="for environments, outcomes and event logs (default: .tfos_job in your home on HDFS)")
    add(
        "--submit_timeout",
        type=int,
        default=300,
        metavar="S",
        help="seconds to reach YARN, or Kubernetes and its image (default: 300)",
    )
    add(
        "--accept_timeout",
        type=int,
        default=3600,
        metavar="S",
        help="seconds that the application may wait in the queue for its driver's container (default: 3600)",
    )
    on_kubernetes.add_flags(made.add_argument_group("with --master k8s://"))


def _submitted(name: str) -> str:
    """The name of a command that can be submitted.

    Raises:
      FlagError: it cannot.
    """
    command = correction.command(COMMANDS, [name])
    if command.submission is None:
        raise FlagError(
            f"{command.name} runs on this host alone",
            next_step=f"Call `tfos-job {command.name}`; {either(list(SUBMISSIONS))} can be submitted",
        )
    return command.name
