"""`scripts/submit.sh COMMAND [the command's flags] [-- spark-submit's flags]`.

What can be refused is refused here, before anything is uploaded. Then it waits, shows progress on stderr and the job's
results on stdout, and ends with the job's own exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfos_job import cli, hadoop_conf, storage
from tfos_job.config import ConvertConfig, EvaluateConfig, TrainConfig, VerifyConfig, paths
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.formats import manifest as manifests
from tfos_job.host import process_environment as host
from tfos_job.host import signals
from tfos_job.host.results import to_json
from tfos_job.layout import DatasetLayout, RunLayout, join
from tfos_job.protocol.topology import largest_part
from tfos_job.submit import environment, follow, spark_submit, verdict, watch
from tfos_job.submit.container_memory import Network
from tfos_job.submit.spark_submit import Kubernetes, Request, Shipped

log = logging.getLogger("tfos_job.submit")

_SEEDS_FOLDER = "Python"
_NOTHING_SUBMITTED = "Nothing was submitted, and what was packed and uploaded is used again: run it again"
_DEFAULT_QUEUES = {"train": "gpu"}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/submit.sh",
        usage="scripts/submit.sh COMMAND [flags of the command] [flags below] [-- flags of spark-submit]",
        description="Submits a command to a cluster, waits, and ends with the job's own exit code.",
        epilog=f"COMMAND is one of {', '.join(spark_submit.PROFILES)}; its flags: `tfos-job COMMAND --help`. "
        "docs/operations.md has the settings that are set, and why.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    parser.add_argument("command", metavar="COMMAND", choices=spark_submit.PROFILES, help="what to submit: see below")
    add("--master", default="yarn", metavar="yarn|k8s://URL", help="the cluster (default: yarn)")
    add("--queue", help="YARN's queue (default: gpu for train, default for all else)")
    add("--dry-run", "--dry_run", action="store_true", help="print the exact spark-submit line, and change nothing")
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
    kubernetes = parser.add_argument_group("with --master k8s://")
    kubernetes.add_argument("--image", default="", help="an image with this package in /opt/tfos_job and its Python")
    kubernetes.add_argument("--namespace", default="", help="the pods' namespace")
    kubernetes.add_argument("--service_account", default="", help="the driver's service account")
    kubernetes.add_argument("--driver_pod_template", default="", metavar="FILE", help="the driver's pod template")
    kubernetes.add_argument("--executor_pod_template", default="", metavar="FILE", help="the executors' pod template")
    kubernetes.add_argument("--gpu_vendor", default="nvidia.com", help="of the GPUs (default: nvidia.com)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    with signals.raised():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("tfos_job").setLevel(logging.INFO)
    changes = host.settle_process()
    own, spark_args = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    options, app_args = make_parser().parse_known_args(own)
    if not {"-v", "--verbose"}.isdisjoint(app_args):
        logging.getLogger("tfos_job").setLevel(logging.DEBUG)
    for change in [*changes, *host.settle_submission(os.environ)]:
        log.debug("%s", change)
    try:
        return _submit(options, app_args, spark_args)
    except (Exception, KeyboardInterrupt) as e:  # noqa: BLE001 - a bug must end with its own exit code, too
        error = cli.as_job_error(e, _NOTHING_SUBMITTED)
    if "--debug" in app_args:
        logging.getLogger().error("", exc_info=error)
    print(f"submit.sh {options.command}: error: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def _submit(options: argparse.Namespace, app_args: list[str], spark_args: list[str]) -> int:
    began = time.time()
    config = cli.parse_config(options.command, app_args)
    on_yarn = options.master == "yarn"
    if not on_yarn and not options.master.startswith("k8s://"):
        raise SettingsError(
            f"{options.master!r} is neither yarn nor k8s://…",
            place="--master",
            next_step="On this machine alone call `tfos-job` itself",
        )
    hdfs_dir = options.hdfs_dir or (_default_hdfs_dir() if on_yarn else "")
    _require_urls({**paths(config), "hdfs_dir": hdfs_dir})
    if _refuse_early(config):
        return 0
    request = Request(
        command=options.command,
        app_args=app_args,
        config=config,
        **_size_of_work(config),
        master=options.master,
        queue=options.queue or _DEFAULT_QUEUES.get(options.command, "default"),
        spark_args=spark_args,
        home=str(home()),
        hdfs_dir=hdfs_dir,
        other_dirs=_other_dirs(config),
        wait=not options.detach,
        shipped=_shipped(options, spark_args, hdfs_dir) if on_yarn else Shipped(),
        kubernetes=Kubernetes(
            **{name: getattr(options, name) for name in Kubernetes.__dataclass_fields__},
        ),
    )
    profiles = [_profile(name) for name in spark_submit.PROFILES[options.command]]
    line = spark_submit.spark_submit_line(request, profiles)  # raises for the user's own flags
    if options.dry_run:
        sys.stdout.buffer.write(os.fsencode(f"{shlex.join(line)}\n"))  # the very bytes, whatever stdout's encoding
        return 0
    if on_yarn:
        environment.prepare(hdfs_dir, python=_packs_python(options, spark_args))
    for folder in spark_submit.folders(request):
        storage.make_dirs(folder)
    if not on_yarn:
        return _run_on_kubernetes(request, line)
    uploaded = time.time()
    return _run(options, request, line, began=began, uploaded=uploaded)


def home() -> Path:
    """The folder with `spark/` in it: `$TFOS_JOB_HOME`, else that of this checkout.

    Raises:
      SettingsError: it is not there.
    """
    folder = Path(os.environ.get("TFOS_JOB_HOME") or Path(__file__).resolve().parents[2])
    if not (folder / "spark" / "conf" / "common.conf").is_file():
        raise SettingsError("no spark/conf/common.conf in it", place=str(folder), next_step="Set TFOS_JOB_HOME")
    return folder


def _profile(name: str) -> dict[str, str]:
    path = home() / "spark" / "conf" / f"{name}.conf"
    return spark_submit.parse_profile(path.read_text("utf-8"), str(path))


def _default_hdfs_dir() -> str:
    return f"{hadoop_conf.default_fs(hadoop_conf.conf_dir())}/user/{hadoop_conf.user()}/.tfos_job"


# --- refused here rather than there ----------------------------------------------------------------------------------


def _require_urls(given: Mapping[str, str]) -> None:
    for name, path in given.items():
        if path and "://" not in storage.absolute(path) and not path.startswith("file:"):
            raise SettingsError(
                f"{path} is a path on the disk of whichever host runs the container",
                place=f"--{name}",
                next_step=f"Give hdfs://{path if path.startswith('/') else '/…/' + path}, or file:// and a path that "
                "every node mounts",
            )


def _refuse_early(config: Any) -> bool:
    """Looks at what the command needs; True where there is nothing left to do.

    Raises:
      JobError: what the job itself would raise, minutes later.
    """
    if isinstance(config, TrainConfig):
        from tfos_job.jobs.train import check  # Spark's Python side takes a second to import

        report = check(config)
        if report is not None:
            log.info("%s is finished. Nothing to do", config.train_dir)
            print(to_json(cli.summary_of_run(report), sys.stdout.encoding), flush=True)
            return True
    elif isinstance(config, ConvertConfig):
        from tfos_job.conversion.dataset import require_folders

        require_folders(config)
        if config.labels_csv is not None and not storage.exists(config.labels_csv):
            raise MissingInputError("no such file", place=config.labels_csv, next_step="Check --labels_csv")
    elif isinstance(config, EvaluateConfig):
        manifests.load(DatasetLayout(config.dataset_dir).split(config.dataset_split_name))
        if not storage.is_dir(config.train_dir):
            raise MissingInputError("no such folder", place=config.train_dir, next_step="Check --train_dir")
    return False


def _other_dirs(config: Any) -> list[str]:
    """Folders that the command uses beside those of its flags: those of the GNT files that splits were made from.

    Raises:
      SettingsError: one is on the disk of some host.
    """
    if not isinstance(config, VerifyConfig) or config.gnt_dir != "auto":
        return []
    dataset, name = DatasetLayout(config.dataset_dir), config.dataset_split_name
    entries = storage.list_dir(dataset.root) if name == "all" else []
    folders = set()
    for split in map(dataset.split, [entry.name for entry in entries if entry.is_dir] or [name]):
        with contextlib.suppress(BadDataError, MissingInputError):  # `verify` tells of it
            folders.add(manifests.load(split).settings.get("gnt_dir") or "")
    for folder in folders:
        _require_urls({"gnt_dir": folder})
    return sorted(folders)


def _size_of_work(config: Any) -> dict[str, Any]:
    """What a `Request` says of network and split, as far as it is known; its own defaults are the seed's."""
    if isinstance(config, TrainConfig):
        train = manifests.load(DatasetLayout(config.dataset_dir).split(config.dataset_split_name))
        shards = [(shard.file, shard.num_records) for shard in train.shards]
        return {
            "network": Network(
                model_name=config.model_name,
                image_size=config.side,
                num_channels=train.num_channels,
                num_classes=train.num_classes,
            ),
            "worker_records": largest_part(shards, config.num_workers),
            "record_bytes": train.record_bytes,
        }
    if isinstance(config, EvaluateConfig) and storage.exists(RunLayout(config.train_dir).report):
        model = storage.read_json(RunLayout(config.train_dir).report).get("model", {})
        names = [field.name for field in dataclasses.fields(Network)]
        return {"network": Network(**{name: model[name] for name in names if name in model})}
    if isinstance(config, ConvertConfig):
        return {"of_pictures": config.image_dir is not None}
    if isinstance(config, VerifyConfig):
        return {"of_pictures": _holds_pictures(DatasetLayout(config.dataset_dir))}
    return {}


def _holds_pictures(dataset: DatasetLayout) -> bool:
    """Whether a split was made from image files; what else is wrong with one is for the job to say."""
    for entry in storage.list_dir(dataset.root) if storage.is_dir(dataset.root) else ():
        with contextlib.suppress(BadDataError, MissingInputError):
            if entry.is_dir and manifests.load(dataset.split(entry.name)).images is not None:
                return True
    return False


# --- what travels along ----------------------------------------------------------------------------------------------


def _shipped(options: argparse.Namespace, spark_args: Sequence[str], hdfs_dir: str) -> Shipped:
    """What the containers are given, by name; nothing is packed or uploaded."""
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
    """Whether the user ships Python as the seed job did: `-- --archives Python.zip#Python`."""
    archives = spark_submit.parse_spark_args(spark_args)[0].get("spark.archives", "")
    return any(archive.endswith(f"#{_SEEDS_FOLDER}") for archive in archives.split(","))


# --- the application -------------------------------------------------------------------------------------------------


def _run_on_kubernetes(request: Request, line: Sequence[str]) -> int:
    environment = {k: v for k, v in _spark_submit_environment().items() if k != "SPARK_SUBMIT_OPTS"}
    try:
        code, said = watch.pass_through(line, environment)
    except KeyboardInterrupt as e:
        end = f"The driver's pod goes on where it was made: spark-submit --master {request.master} --kill …:…-driver"
        raise signals.interruption(e, end) or e from e
    error = verdict.judge_pod(code, said, request.master)
    if error is not None:
        raise error
    return 0


def _run(options: argparse.Namespace, request: Request, line: Sequence[str], *, began: float, uploaded: float) -> int:
    outcome_dir = join(request.hdfs_dir, "outcomes")
    train_dir = request.config.train_dir if isinstance(request.config, TrainConfig) else None
    followers: list[follow.Follower] = []

    def on_change(watched: watch.Watched) -> None:
        _say_state(watched, request)
        if watched.application and not followers and not options.detach:
            followers.append(follow.Follower(outcome_dir, watched.application, train_dir).__enter__())

    try:
        watched = watch.run(
            line,
            _spark_submit_environment(),
            on_change=on_change,
            submit_timeout_s=options.submit_timeout,
            accept_timeout_s=options.accept_timeout,
            detach=options.detach,
            when_stopped=cli.COMMANDS[options.command].when_stopped,
        )
    finally:
        for follower in followers:
            follower.__exit__()
    if options.detach and watched.application:
        print(watched.application, flush=True)
        return 0
    return _conclude(watched, request, outcome_dir, began=began, uploaded=uploaded)


def _say_state(watched: watch.Watched, request: Request) -> None:
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


def _conclude(watched: watch.Watched, request: Request, outcome_dir: str, *, began: float, uploaded: float) -> int:
    outcome = follow.read_outcome(outcome_dir, watched.application) if watched.application else None
    error = verdict.judge(watched.end(request.command), outcome)
    for result in (outcome or {}).get("results", []):
        print(to_json(result, sys.stdout.encoding), flush=True)
    if watched.application:
        log.info("%s", _phases(watched, outcome, request, began, uploaded))
    if error is not None:
        raise error
    return 0


def _phases(
    watched: watch.Watched, outcome: dict[str, Any] | None, request: Request, began: float, uploaded: float
) -> str:
    """Seconds of each phase, from the command to the first step."""
    now = time.time()
    submitted = watched.times.get("submitted", now)
    phases = {"prepare and upload": uploaded - began, "submit": submitted - uploaded}
    if outcome is not None:
        phases["driver's container"] = outcome["started_s"] - submitted
    if isinstance(request.config, TrainConfig):
        report = follow.read_report(request.config.train_dir)
        if report.get("application") == watched.application:
            names = {
                "spark": "settings",
                "preflight": "executors and preflight",
                "nodes": "registration",
                "coordinator": "model build",
            }
            phases |= {name: report.get("phases", {}).get(phase, 0.0) for phase, name in names.items()}
            phases["first step"] = report.get("first_step_s", 0.0)
    text = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())
    return f"{now - began:.1f} s in all: {text}"


def _spark_submit_environment() -> dict[str, str]:
    """Without what other Sparks and Pythons have left in this one; with our log settings."""
    environment = dict(os.environ)
    host.apply(environment, host.settle_submission(environment))
    log4j2 = f"-Dlog4j2.configurationFile=file:{home()}/spark/conf/log4j2-submit.properties"
    environment["SPARK_SUBMIT_OPTS"] = f"{environment.get('SPARK_SUBMIT_OPTS', '')} {log4j2}".strip()
    return environment


if __name__ == "__main__":
    sys.exit(main())
