"""`tfos-job submit COMMAND [the command's flags] [-- spark-submit's flags]`; `scripts/submit.sh` is the same.

Wrong flags and missing data fail here, before anything is uploaded. Then it waits, shows progress on stderr and the
job's results on stdout, and ends with the job's own exit code.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tfos_job import cli, hadoop_conf, storage
from tfos_job.commands import correction, parser
from tfos_job.commands.parser import FlagParser
from tfos_job.commands.registry import COMMANDS, SUBMISSIONS, SUBMIT
from tfos_job.config import deadlines, paths
from tfos_job.config.values import either
from tfos_job.doctor.resource_manager import ResourceManager
from tfos_job.errors import FlagError, SettingsError
from tfos_job.host import process_environment as host
from tfos_job.host import signals
from tfos_job.host.logs import LogLines
from tfos_job.host.results import to_json
from tfos_job.submit import application, environment, spark_arguments, spark_folder, spark_submit
from tfos_job.submit.spark_submit import Kubernetes, Request, Shipped
from tfos_job.submit.watch import Patience

log = logging.getLogger("tfos_job.submit")

_SEEDS_FOLDER = "Python"
_NOTHING_SUBMITTED = "Nothing was submitted, and what was packed and uploaded is used again: run it again"


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
        "--environment",
        default="auto",
        metavar="auto|none|URL",
        help="the containers' Python: `auto` packs this one and sends it along, `none` takes the path of this one on "
        "every node, URL is an archive with bin/python in it (default: auto)",
    )
    add("--hdfs_dir", help="for environments, outcomes and event logs (default: .tfos_job in your home on HDFS)")
    add("--submit_timeout", type=int, default=300, metavar="S", help="seconds to reach YARN (default: 300)")
    add(
        "--accept_timeout",
        type=int,
        default=3600,
        metavar="S",
        help="seconds that the application may wait in the queue for its driver's container (default: 3600)",
    )
    kubernetes = made.add_argument_group("with --master k8s://")
    kubernetes.add_argument("--image", default="", help="an image with this package in /opt/tfos_job and its Python")
    kubernetes.add_argument("--namespace", default="", help="the pods' namespace")
    kubernetes.add_argument("--service_account", default="", help="the driver's service account")
    kubernetes.add_argument("--driver_pod_template", default="", metavar="FILE", help="the driver's pod template")
    kubernetes.add_argument("--executor_pod_template", default="", metavar="FILE", help="the executors' pod template")
    kubernetes.add_argument("--gpu_vendor", default="nvidia.com", help="of the GPUs (default: nvidia.com)")


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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with signals.raised(), LogLines(SUBMIT, words) as lines:
        return _main(words, lines)


def _main(argv: list[str], lines: LogLines) -> int:
    changes = host.settle_process()
    own, spark_args = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    title = f"tfos-job {SUBMIT}"
    try:
        own_parser = make_parser()
        options, app_args = own_parser.split(own)
        title += f" {options.command}"
        line = parser.parse(COMMANDS, [options.command, *app_args], own_parser.flags)
        lines.use(line.process)
        for change in [*changes, *host.settle_submission(os.environ)]:
            log.debug("%s", change)
        config = parser.configuration(line.command, line.given)
        options.master = options.master or line.process.master or "yarn"
        options.dry_run = options.dry_run or line.given.get("dry_run", False)
        if line.process.config is not None:  # the file is here: the job is sent what it says
            app_args = line.without_file("master", "dry_run")
        return _submit(options, config, app_args, spark_args)
    except (Exception, KeyboardInterrupt) as e:  # noqa: BLE001 - a bug must end with its own exit code, too
        error = cli.as_job_error(e, _NOTHING_SUBMITTED)
    lines.fail(title, error, error.exit_code)
    return error.exit_code


def _submit(options: argparse.Namespace, config: Any, app_args: list[str], spark_args: list[str]) -> int:
    began = time.time()
    on_yarn = options.master == "yarn"
    if not on_yarn and not options.master.startswith("k8s://"):
        raise SettingsError(
            f"{options.master!r} is neither yarn nor k8s://…",
            place="--master",
            next_step="On this machine alone call `tfos-job` itself",
        )
    hdfs_dir = options.hdfs_dir or (_default_hdfs_dir() if on_yarn else "")
    _require_urls([*paths(config), ("--hdfs_dir", hdfs_dir)])
    submission = SUBMISSIONS[options.command]
    finished = submission.check(config)
    if finished is not None:
        print(to_json(finished, sys.stdout.encoding), flush=True)
        return 0
    request = _request(options, config, app_args, spark_args, hdfs_dir)
    profiles = [spark_folder.profile(name) for name in submission.profiles]
    line = spark_submit.spark_submit_line(request, profiles)  # raises for the user's own flags
    _say_remarks(request)
    if options.dry_run:
        submission.foretell(config, options.master)
        sys.stdout.buffer.write(os.fsencode(f"{shlex.join(line)}\n"))  # exact bytes, whatever the encoding
        return 0
    if on_yarn:
        environment.prepare(hdfs_dir, python=_packs_python(options, spark_args))
    for folder in spark_submit.folders(request):
        storage.make_dirs(folder)
    spark_submit_environment = _spark_submit_environment(on_yarn=on_yarn)
    if not on_yarn:
        return application.run_on_kubernetes(request, line, spark_submit_environment)
    return application.run_on_yarn(
        request,
        line,
        spark_submit_environment,
        patience=_patience(options, config),
        began=began,
        uploaded=time.time(),
    )


def _say_remarks(request: Request) -> None:
    """What the user should know of the settings that were asked for, and of those that are set for the work."""
    for doubt in spark_submit.doubts(request):
        log.warning("%s", doubt)
    theirs, _ = spark_arguments.parse(request.spark_args)
    for setting, text in request.submission.remarks(request.config, request.work, request.master).items():
        if setting not in theirs:
            log.info("%s", text)


def _request(
    options: argparse.Namespace, config: Any, app_args: list[str], spark_args: list[str], hdfs_dir: str
) -> Request:
    submission = SUBMISSIONS[options.command]
    other_dirs = submission.other_dirs(config)
    _require_urls((f"--{name}", folder) for name, folder in other_dirs)
    return Request(
        command=options.command,
        app_args=app_args,
        config=config,
        work=submission.size_of_work(config),
        master=options.master,
        queue=options.queue or submission.queue,
        spark_args=spark_args,
        home=str(spark_folder.home()),
        hdfs_dir=hdfs_dir,
        other_dirs=[folder for _, folder in other_dirs],
        wait=not options.detach,
        shipped=_shipped(options, spark_args, hdfs_dir) if options.master == "yarn" else Shipped(),
        kubernetes=Kubernetes(**{name: getattr(options, name) for name in Kubernetes.__dataclass_fields__}),
    )


def _patience(options: argparse.Namespace, config: Any) -> Patience:
    """The time limits of YARN: of a training that of `--deadlines application=…`, if it is given."""
    manager = ResourceManager.of_conf(hadoop_conf.conf_dir())
    accept_s = deadlines.application_s(getattr(config, "deadlines", ""), options.accept_timeout)
    return Patience(submit_s=options.submit_timeout, accept_s=accept_s, lack=manager.lack)


def _default_hdfs_dir() -> str:
    return f"{hadoop_conf.default_fs(hadoop_conf.conf_dir())}/user/{hadoop_conf.user()}/.tfos_job"


# --- checks before anything is uploaded -------------------------------------------------------------------------------


def _require_urls(given: Iterable[tuple[str, str]]) -> None:
    """Raises SettingsError for a flag whose path is on some host's disk."""
    for flag, path in given:
        if path and "://" not in storage.absolute(path) and not path.startswith("file:"):
            raise SettingsError(
                f"{path} is a path on the disk of whichever host runs the container",
                place=flag,
                next_step=f"Give hdfs://{path if path.startswith('/') else '/…/' + path}, or file:// and a path that "
                "every node mounts",
            )


# --- what travels along ----------------------------------------------------------------------------------------------


def _shipped(options: argparse.Namespace, spark_args: Sequence[str], hdfs_dir: str) -> Shipped:
    """The names of what travels to the containers; nothing is packed or uploaded."""
    shipment = environment.plan(hdfs_dir, python=_packs_python(options, spark_args))
    archive, python = shipment.python_archive, f"./{environment.FOLDER}/bin/python"
    if _brings_python(spark_args):
        archive, python = "", f"./{_SEEDS_FOLDER}/bin/python"
    elif options.environment == "none":
        archive, python = "", sys.executable
    elif options.environment != "auto":
        url, _, folder = options.environment.partition("#")
        folder = folder or environment.FOLDER
        archive, python = f"{url}#{folder}", f"./{folder}/bin/python"
    return Shipped(archive=archive, python=python, spark_archive=shipment.spark_archive, package=shipment.package)


def _packs_python(options: argparse.Namespace, spark_args: Sequence[str]) -> bool:
    return options.environment == "auto" and not _brings_python(spark_args)


def _brings_python(spark_args: Sequence[str]) -> bool:
    """True if the user ships Python as the seed job did: `-- --archives Python.zip#Python`."""
    archives = spark_arguments.parse(spark_args)[0].get("spark.archives", "")
    return any(archive.endswith(f"#{_SEEDS_FOLDER}") for archive in archives.split(","))


# --- spark-submit's own process --------------------------------------------------------------------------------------


def _spark_submit_environment(*, on_yarn: bool) -> dict[str, str]:
    """This process's environment without the variables of other Sparks and Pythons; on YARN with our log settings."""
    environment = dict(os.environ)
    host.apply(environment, host.settle_submission(environment))
    options = environment.pop("SPARK_SUBMIT_OPTS", "")
    if on_yarn:
        log4j2 = f"-Dlog4j2.configurationFile=file:{spark_folder.home()}/spark/conf/log4j2-submit.properties"
        environment["SPARK_SUBMIT_OPTS"] = f"{options} {log4j2}".strip()
    return environment


if __name__ == "__main__":
    sys.exit(main())
