"""The exact spark-submit line of a command. Pure: strings in, strings out.

Settings come from four places, the later ones stronger: the profiles in `spark/conf/`, what follows from the command's
own configuration (nodes, memory, GPUs), what travels with the job, and the user's own flags after `--`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfos_job.commands.command import Submission, Work
from tfos_job.commands.registry import SUBMISSIONS
from tfos_job.config import paths
from tfos_job.config.defaults import EVENTS, OUTCOMES
from tfos_job.errors import SettingsError
from tfos_job.outcome import OUTCOME_DIR_VARIABLE
from tfos_job.protocol import spark_settings
from tfos_job.submit import spark_arguments

FOLDERS = OUTCOMES, EVENTS
_EXECUTOR_CORES = 4


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """The URLs of what travels with the job; empty for what does not.

    Attributes:
      archive: the Python environment, for `--archives`.
      python: its interpreter's path in the containers.
      spark_archive: Spark's jars, for `spark.yarn.archive`.
      package: this package, for `--py-files`.
    """

    archive: str = ""
    python: str = ""
    spark_archive: str = ""
    package: str = ""


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """`--master k8s://…`."""

    image: str = ""
    namespace: str = ""
    service_account: str = ""
    driver_pod_template: str = ""
    executor_pod_template: str = ""
    gpu_vendor: str = "nvidia.com"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A command to submit.

    Attributes:
      command: `train`, `convert`, …
      app_args: the command's own flags, as given.
      config: the same, parsed.
      work: the size of the command's work, for the memory.
      master: `yarn` or `k8s://…`.
      queue: YARN's queue.
      spark_args: the user's flags after `--`.
      home: the folder that holds `spark/`.
      hdfs_dir: folder of outcomes and event logs; may be empty on Kubernetes.
      other_dirs: folders that the command uses beside those of its flags.
      wait: wait for the application's end.
      tag: one more of YARN's tags, by which a run id finds its application; or empty.
    """

    command: str
    app_args: Sequence[str]
    config: Any
    work: Work = field(default_factory=Work)
    master: str
    queue: str
    spark_args: Sequence[str] = ()
    home: str
    hdfs_dir: str
    other_dirs: Sequence[str] = ()
    wait: bool = True
    tag: str = ""
    shipped: Shipped = Shipped()
    kubernetes: Kubernetes = field(default_factory=Kubernetes)

    @property
    def on_kubernetes(self) -> bool:
        return self.master.startswith("k8s://")

    @property
    def submission(self) -> Submission:
        return SUBMISSIONS[self.command]


def folders(request: Request) -> list[str]:
    """The folders that must exist before the application starts."""
    if not request.hdfs_dir:
        return []
    return [f"{request.hdfs_dir}/{name}" for name in FOLDERS]


def parse_profile(text: str, place: str) -> dict[str, str]:
    """A file of Spark settings: a key, blanks, a value; `#` begins a comment.

    Raises:
      SettingsError: a line that is neither.
    """
    settings = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, _, value = stripped.partition(" ")
        if not key.startswith("spark.") or not value.strip():
            raise SettingsError(f"not a Spark setting: {stripped!r}", place=f"{place}, line {number}")
        settings[key] = value.strip()
    return settings


def spark_submit_line(request: Request, profiles: Sequence[Mapping[str, str]]) -> list[str]:
    """The whole command, without the path of spark-submit itself.

    Raises:
      SettingsError: flags after `--` that are not for the user to give, or that contradict each other.
    """
    own: dict[str, str] = {}
    for profile in profiles:
        own |= {k: v for k, v in profile.items() if not (request.on_kubernetes and k.startswith("spark.yarn."))}
    own |= _identity(request) | request.submission.containers(request.config, request.work, request.master)
    own |= _on_kubernetes(request) if request.on_kubernetes else _on_yarn(request)
    theirs, passed_on = spark_arguments.parse(request.spark_args)
    settings = spark_arguments.merge(own, theirs)
    _fill_executor(settings, request)
    program = f"spark/{request.command}_job.py"
    program = f"local:///opt/tfos_job/{program}" if request.on_kubernetes else f"{request.home}/{program}"
    line = ["spark-submit", "--master", request.master, "--deploy-mode", "cluster"]
    by_setting = {setting: flag for flag, setting in spark_arguments.NAMED.items()}
    for setting in [*by_setting, *sorted(set(settings) - set(by_setting))]:
        if setting in settings:
            flag = by_setting.get(setting)
            line += [flag, settings[setting]] if flag else ["--conf", f"{setting}={settings[setting]}"]
    return [*line, *passed_on, program, *request.app_args]


def doubts(request: Request) -> list[str]:
    """What of the user's own flags keeps a training from being restarted, each as a sentence."""
    if not request.submission.trains:
        return []
    theirs, _ = spark_arguments.parse(request.spark_args)
    settings = request.submission.containers(request.config, request.work, request.master) | theirs
    number = settings["spark.executor.instances"]
    return spark_settings.doubts(settings, int(number) if number.isdecimal() else 0, request.config.max_restarts)


def _identity(request: Request) -> dict[str, str]:
    given = dict(reversed(paths(request.config)))
    where = next((given[flag] for flag in ("--train_dir", "RUN", "--dataset_dir") if flag in given), "")
    settings = {"spark.app.name": f"tfos_job {request.command} {where}".strip()}
    if not request.on_kubernetes:
        tags = [each for each in ("tfos_job", f"tfos_job-{request.command}", request.tag) if each]
        settings |= {"spark.yarn.queue": request.queue, "spark.yarn.tags": ",".join(tags)}
    return settings


def _on_yarn(request: Request) -> dict[str, str]:
    shipped, conf = request.shipped, f"{request.home}/spark/conf"
    settings = {
        "spark.files": f"{conf}/log4j2.properties",
        "spark.submit.pyFiles": shipped.package,
        "spark.archives": shipped.archive,
        "spark.yarn.archive": shipped.spark_archive,
        "spark.eventLog.dir": f"{request.hdfs_dir}/{EVENTS}",
        "spark.yarn.appMasterEnv." + OUTCOME_DIR_VARIABLE: f"{request.hdfs_dir}/{OUTCOMES}",
        "spark.yarn.submit.waitAppCompletion": "true" if request.wait else "false",
    }
    if not request.submission.trains:
        settings["spark.yarn.maxAppAttempts"] = "1"  # also for what starts from the profile of `train`
    # With Kerberos, Spark fetches tokens only for the default file system, unless others are named.
    settings[spark_arguments.FILE_SYSTEMS] = ",".join(_file_systems(request))
    if shipped.python:
        for variable in ("spark.yarn.appMasterEnv.", "spark.executorEnv."):
            settings[variable + "PYSPARK_PYTHON"] = shipped.python
            settings[variable + "PYTHONNOUSERSITE"] = "1"  # Packages in a node's home folder do not belong to the job.
    return {key: value for key, value in settings.items() if value}


def _file_systems(request: Request) -> list[str]:
    """The file systems that are named in the URLs of the job's folders."""
    folders = [*(path for _, path in paths(request.config)), *request.other_dirs, request.hdfs_dir]
    named = [re.match(r"(?:hdfs|viewfs)://[^/]+", folder) for folder in folders]
    return sorted({match[0] for match in named if match})


def _on_kubernetes(request: Request) -> dict[str, str]:
    options = request.kubernetes
    if not options.image:
        raise SettingsError(
            "Kubernetes runs images", place=f"--master {request.master}", next_step="Give --image with this package"
        )
    settings = {
        "spark.kubernetes.container.image": options.image,
        "spark.kubernetes.namespace": options.namespace,
        "spark.kubernetes.authenticate.driver.serviceAccountName": options.service_account,
        "spark.kubernetes.driver.podTemplateFile": options.driver_pod_template,
        "spark.kubernetes.executor.podTemplateFile": options.executor_pod_template,
        "spark.kubernetes.submission.waitAppCompletion": "true" if request.wait else "false",
        # The events of a pod go with it, unless there is a folder for them.
        "spark.eventLog.enabled": "true" if request.hdfs_dir else "false",
        "spark.eventLog.dir": f"{request.hdfs_dir}/{EVENTS}" if request.hdfs_dir else "",
        "spark.kubernetes.driverEnv." + OUTCOME_DIR_VARIABLE: (
            f"{request.hdfs_dir}/{OUTCOMES}" if request.hdfs_dir else ""
        ),
    }
    return {key: value for key, value in settings.items() if value}


def _fill_executor(settings: dict[str, str], request: Request) -> None:
    """Settings that follow from the user's own: one task fills an executor and has its GPUs."""
    if not request.submission.fills_executors:
        return
    settings.setdefault("spark.executor.cores", str(_EXECUTOR_CORES))
    settings["spark.task.cpus"] = settings["spark.executor.cores"]
    num_gpus = getattr(request.config, "num_gpus", 0)
    if num_gpus:
        settings["spark.executor.resource.gpu.amount"] = str(num_gpus)
        settings["spark.task.resource.gpu.amount"] = str(num_gpus)
        if request.on_kubernetes:
            settings.setdefault("spark.executor.resource.gpu.vendor", request.kubernetes.gpu_vendor)
        if "spark.executor.resource.gpu.discoveryScript" not in settings:
            if request.on_kubernetes:
                script = "/opt/tfos_job/spark/conf/gpu_discovery.sh"
            else:
                script = "./gpu_discovery.sh"
                settings["spark.files"] += f",{request.home}/spark/conf/gpu_discovery.sh"
            settings["spark.executor.resource.gpu.discoveryScript"] = script
