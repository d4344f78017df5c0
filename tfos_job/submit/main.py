"""`tfos-job submit COMMAND [the command's flags] [-- spark-submit's flags]`; `scripts/submit.sh` is the same.

Wrong flags and missing data fail here, before anything is uploaded. Then it waits, shows progress on stderr and the
job's results on stdout, and ends with the job's own exit code.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tfos_job import cli, hadoop_conf, storage
from tfos_job.commands import parser
from tfos_job.commands.registry import COMMANDS, SUBMISSIONS, SUBMIT
from tfos_job.config import deadlines, paths
from tfos_job.doctor.resource_manager import ResourceManager
from tfos_job.errors import SettingsError
from tfos_job.host import process_environment as host
from tfos_job.host import signals
from tfos_job.host.logs import LogLines
from tfos_job.host.results import to_json
from tfos_job.submit import (
    application,
    environment,
    on_kubernetes,
    pod_watch,
    run_record,
    shipment,
    spark_arguments,
    spark_folder,
    spark_submit,
)
from tfos_job.submit.claim import Claim
from tfos_job.submit.decision import Attach, Submit, Tell
from tfos_job.submit.own_flags import make_parser
from tfos_job.submit.run_record import Asked
from tfos_job.submit.spark_submit import Request, Shipped
from tfos_job.submit.watch import Patience

log = logging.getLogger("tfos_job.submit")

_NOTHING_SUBMITTED = "Nothing was submitted, and what was packed and uploaded is used again: run it again"


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
        return _submit(options, config, Asked.of(options.command, line.given, spark_args), app_args, spark_args)
    except (Exception, KeyboardInterrupt) as e:  # noqa: BLE001 - a bug must end with its own exit code, too
        error = cli.as_job_error(e, _NOTHING_SUBMITTED)
    lines.fail(title, error, error.exit_code)
    return error.exit_code


def submit_stage(words: Sequence[str], *, run_id: str, stage: str, hdfs_dir: str = "") -> int:
    """Submits one stage of a run, unless it is at work or has ended: `tfos-job submit WORDS --run_id … --stage …`.

    Args:
      words: of the submission: the command, its flags, those of submit, and behind `--` those of spark-submit.
      run_id: names the run: any word.
      stage: names the stage within the run: any word.
      hdfs_dir: folder of the records, outcomes and environments (default: that of `submit`).

    Returns:
      The exit code; the results are on stdout, the error is on stderr.
    """
    at = words.index("--") if "--" in words else len(words)
    own = [*words[:at], f"--run_id={run_id}", f"--stage={stage}", *([f"--hdfs_dir={hdfs_dir}"] if hdfs_dir else [])]
    return main([*own, *words[at:]])


def _submit(options: argparse.Namespace, config: Any, asked: Asked, app_args: list[str], spark_args: list[str]) -> int:
    began = time.time()
    on_yarn = options.master == "yarn"
    if not on_yarn and not options.master.startswith("k8s://"):
        raise SettingsError(
            f"{options.master!r} is neither yarn nor k8s://…",
            place="--master",
            next_step="On this machine alone call `tfos-job` itself",
        )
    _require_run_id(options)
    hdfs_dir = options.hdfs_dir or (_default_hdfs_dir() if on_yarn else "")
    _require_urls([*paths(config), ("--hdfs_dir", hdfs_dir)])
    request = Request(
        command=options.command,
        app_args=app_args,
        config=config,
        master=options.master,
        queue=options.queue or SUBMISSIONS[options.command].queue,
        spark_args=spark_args,
        home=str(spark_folder.home()),
        hdfs_dir=hdfs_dir,
        wait=not options.detach,
    )
    if options.run_id is None:
        return _submit_now(request, options, began)
    request = dataclasses.replace(request, tag=run_record.tag_of(hdfs_dir, options.run_id, _stage(options), asked))
    return _submit_now(request, options, began) if options.dry_run else _submit_once(request, options, asked, began)


def _submit_once(request: Request, options: argparse.Namespace, asked: Asked, began: float) -> int:
    """Submits, follows or tells what is asked for under a run id, whichever is left to do."""
    child_environment = _spark_submit_environment()
    stage = _stage(options)
    with Claim(request, options.run_id, stage, asked, child_environment, options.submit_timeout) as claim:
        match claim.settle():
            case Attach(name):
                patience = _patience(options, request.config)
                return application.attach(request, name, child_environment, patience=patience, claim=claim)
            case Tell():
                return application.tell(request, claim)
            case Submit(number):
                return _submit_now(request, options, began, claim, number)


def _submit_now(
    request: Request, options: argparse.Namespace, began: float, claim: Claim | None = None, number: int = 1
) -> int:
    """Checks, uploads and submits; with a claim as the attempt of that number."""
    on_yarn = not request.on_kubernetes
    finished = request.submission.check(request.config)
    if finished is not None:
        print(to_json(finished, sys.stdout.encoding), flush=True)
        return 0
    request = _complete(request, options)
    profiles = [spark_folder.profile(name) for name in request.submission.profiles]
    line = spark_submit.spark_submit_line(request, profiles)  # raises for the user's own flags
    _say_remarks(request)
    if options.dry_run:
        request.submission.foretell(request.config, request.master)
        sys.stdout.buffer.write(os.fsencode(f"{shlex.join(line)}\n"))  # exact bytes, whatever the encoding
        return 0
    if on_yarn:
        environment.prepare(request.hdfs_dir, python=shipment.packs_python(options, request.spark_args))
    for folder in spark_submit.folders(request):
        storage.make_dirs(folder)
    spark_submit_environment = _spark_submit_environment()
    if not on_yarn:
        limits = pod_watch.Patience(submit_s=options.submit_timeout, accept_s=_accept_s(options, request.config))
        return on_kubernetes.run(request, line, spark_submit_environment, patience=limits)
    if claim is not None:
        claim.begin(number)
    return application.run_on_yarn(
        request,
        line,
        spark_submit_environment,
        patience=_patience(options, request.config),
        began=began,
        uploaded=time.time(),
        claim=claim,
    )


def _say_remarks(request: Request) -> None:
    """What the user should know of the settings that were asked for, and of those that are set for the work."""
    for doubt in spark_submit.doubts(request):
        log.warning("%s", doubt)
    theirs, _ = spark_arguments.parse(request.spark_args)
    for setting, text in request.submission.remarks(request.config, request.work, request.master).items():
        if setting not in theirs:
            log.info("%s", text)


def _complete(request: Request, options: argparse.Namespace) -> Request:
    """The request with what is read of dataset and run, and what travels along."""
    submission = request.submission
    other_dirs = submission.other_dirs(request.config)
    _require_urls((f"--{name}", folder) for name, folder in other_dirs)
    on_yarn = not request.on_kubernetes
    return dataclasses.replace(
        request,
        work=submission.size_of_work(request.config),
        other_dirs=[folder for _, folder in other_dirs],
        shipped=shipment.names(options, request.spark_args, request.hdfs_dir) if on_yarn else Shipped(),
        kubernetes=on_kubernetes.options_of(options),
    )


def _patience(options: argparse.Namespace, config: Any) -> Patience:
    manager = ResourceManager.of_conf(hadoop_conf.conf_dir())
    return Patience(submit_s=options.submit_timeout, accept_s=_accept_s(options, config), lack=manager.lack)


def _accept_s(options: argparse.Namespace, config: Any) -> float:
    """Seconds until the driver runs: of a training those of `--deadlines application=…`, if they are given."""
    return deadlines.application_s(getattr(config, "deadlines", ""), options.accept_timeout)


def _default_hdfs_dir() -> str:
    return f"{hadoop_conf.default_fs(hadoop_conf.conf_dir())}/user/{hadoop_conf.user()}/.tfos_job"


# --- checks before anything is uploaded -------------------------------------------------------------------------------


def _require_run_id(options: argparse.Namespace) -> None:
    """Raises SettingsError for a run id where there is none to find again, and for a stage without one."""
    if options.run_id is not None and options.master != "yarn":
        raise SettingsError(
            "its application is found again by YARN's tags alone",
            place="--run_id",
            next_step=f"Leave it out with --master {options.master}: a second submission is not kept from starting",
        )
    if options.stage is not None and options.run_id is None:
        raise SettingsError("given without --run_id", place="--stage", next_step="Give both, or neither")
    if options.run_id is not None:
        run_record.folder("", options.run_id, _stage(options))


def _stage(options: argparse.Namespace) -> str:
    return options.command if options.stage is None else str(options.stage)


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


# --- spark-submit's own process --------------------------------------------------------------------------------------


def _spark_submit_environment() -> dict[str, str]:
    """This process's environment without the variables of other Sparks and Pythons, with our log settings."""
    environment = dict(os.environ)
    host.apply(environment, host.settle_submission(environment))
    options = environment.pop("SPARK_SUBMIT_OPTS", "")
    log4j2 = f"-Dlog4j2.configurationFile=file:{spark_folder.home()}/spark/conf/log4j2-submit.properties"
    environment["SPARK_SUBMIT_OPTS"] = f"{options} {log4j2}".strip()
    return environment


if __name__ == "__main__":
    sys.exit(main())
