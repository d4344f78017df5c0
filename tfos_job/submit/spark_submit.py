"""The exact spark-submit line of a command. Pure: strings in, strings out.

Settings come from four places, the later ones stronger: the profiles in `spark/conf/`, what follows from the command's
own configuration (nodes, memory, GPUs), what travels with the job, and the user's own flags after `--`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tfos_job.config import PCA, PRELOADED, ZCA, DoctorConfig, EvaluateConfig, TrainConfig, paths
from tfos_job.errors import SettingsError
from tfos_job.outcome import OUTCOME_DIR_VARIABLE
from tfos_job.protocol.topology import topology_of
from tfos_job.submit import container_memory
from tfos_job.submit.container_memory import ContainerMemory, Network

# The profiles of spark/conf/ that each command starts from, and the queue it goes to where none is given.
PROFILES = {
    "train": ("common", "train"),
    "convert": ("common", "batch"),
    "verify": ("common", "batch"),
    "doctor": ("common", "train"),
    "evaluate": ("common", "driver"),
}
FOLDERS = OUTCOMES, EVENTS = "outcomes", "spark-events"
_EXECUTOR_CORES = 4

# spark-submit's own names for settings, with which an engineer reads and overrides them.
_NAMED = {
    "--name": "spark.app.name",
    "--queue": "spark.yarn.queue",
    "--num-executors": "spark.executor.instances",
    "--executor-cores": "spark.executor.cores",
    "--executor-memory": "spark.executor.memory",
    "--driver-memory": "spark.driver.memory",
    "--driver-cores": "spark.driver.cores",
    "--archives": "spark.archives",
    "--files": "spark.files",
    "--py-files": "spark.submit.pyFiles",
}
_FILE_SYSTEMS = "spark.kerberos.access.hadoopFileSystems"
_LISTS = ("spark.archives", "spark.files", "spark.submit.pyFiles", _FILE_SYSTEMS)
_SWITCHES = ("--verbose", "-v", "--supervise")
_NOT_YOURS = {
    "--master": "Give --master before `--`",
    "--deploy-mode": "The driver runs in the cluster; for one here call `tfos-job COMMAND --master yarn`",
    "--class": "The program is this package's own",
}


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """What travels with the job, as URLs; empty where it does not.

    Attributes:
      archive: the Python environment, for `--archives`.
      python: how the containers call its interpreter.
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
    """What is to be submitted.

    Attributes:
      command: `train`, `convert`, …
      app_args: the command's own flags, as given.
      config: the same, parsed.
      network: that is trained or evaluated, for the memory.
      worker_records: of the dataset, that the worker with the most has.
      record_bytes: of one of them, in the mean; 0 where it is not known.
      of_pictures: whether image files are converted, or what was made of them is verified.
      master: `yarn` or `k8s://…`.
      queue: YARN's.
      spark_args: what the user wrote after `--`.
      home: the folder that holds `spark/`.
      hdfs_dir: where outcomes and event logs lie; empty on Kubernetes where it is not given.
      other_dirs: folders that the command uses beside those of its flags.
      wait: whether somebody waits for the end.
    """

    command: str
    app_args: Sequence[str]
    config: object
    network: Network = field(default_factory=Network)
    worker_records: int = 0
    record_bytes: int = 0
    of_pictures: bool = False
    master: str
    queue: str
    spark_args: Sequence[str] = ()
    home: str
    hdfs_dir: str
    other_dirs: Sequence[str] = ()
    wait: bool = True
    shipped: Shipped = Shipped()
    kubernetes: Kubernetes = field(default_factory=Kubernetes)

    @property
    def on_kubernetes(self) -> bool:
        return self.master.startswith("k8s://")


def folders(request: Request) -> list[str]:
    """Those that must be there before the application is."""
    if not request.hdfs_dir:
        return []
    return [f"{request.hdfs_dir}/{name}" for name in ([EVENTS] if request.on_kubernetes else FOLDERS)]


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
    own |= _identity(request) | _containers(request)
    own |= _on_kubernetes(request) if request.on_kubernetes else _on_yarn(request)
    theirs, passed_on = parse_spark_args(request.spark_args)
    settings = _merge(own, theirs)
    _fill_executor(settings, request)
    program = f"spark/{request.command}_job.py"
    program = f"local:///opt/tfos_job/{program}" if request.on_kubernetes else f"{request.home}/{program}"
    line = ["spark-submit", "--master", request.master, "--deploy-mode", "cluster"]
    by_setting = {setting: flag for flag, setting in _NAMED.items()}
    for setting in [*by_setting, *sorted(set(settings) - set(by_setting))]:
        if setting in settings:
            flag = by_setting.get(setting)
            line += [flag, settings[setting]] if flag else ["--conf", f"{setting}={settings[setting]}"]
    return [*line, *passed_on, program, *request.app_args]


def _identity(request: Request) -> dict[str, str]:
    where = getattr(request.config, "train_dir", None) or getattr(request.config, "dataset_dir", None) or ""
    settings = {"spark.app.name": f"tfos_job {request.command} {where}".strip()}
    if not request.on_kubernetes:
        settings |= {"spark.yarn.queue": request.queue, "spark.yarn.tags": f"tfos_job,tfos_job-{request.command}"}
    return settings


def _containers(request: Request) -> dict[str, str]:
    """Executors, their resources and memory, from the command's configuration."""
    config = request.config
    if isinstance(config, TrainConfig):
        return _training_containers(config, request)
    if isinstance(config, DoctorConfig):
        with_tensorflow = container_memory.parameter_server(parameters=0, num_ps_tasks=1, num_workers=0)
        instances = {"spark.executor.instances": str(config.num_executors)}
        return _driver(container_memory.batch_driver()) | _executor(with_tensorflow) | instances
    if isinstance(config, EvaluateConfig):
        return _driver(container_memory.evaluating_driver(network=request.network, batch_size=config.batch_size))
    return _driver(container_memory.batch_driver()) | _executor(
        container_memory.batch_executor(of_pictures=request.of_pictures)
    )


def _training_containers(config: TrainConfig, request: Request) -> dict[str, str]:
    parameters = request.network.num_parameters
    topology = topology_of(config, request.master)
    beside = topology.num_driver_ps_tasks > 0
    shape = {"parameters": parameters, "num_ps_tasks": config.num_ps_tasks, "num_workers": config.num_workers}
    records, num_channels = request.worker_records, request.network.num_channels
    is_preloaded = config.resolved_input_mode(records, num_channels) == PRELOADED
    preloaded_bytes = config.preloaded_bytes(records, num_channels)
    whitened = config.side**2 * num_channels if config.normalization in (PCA, ZCA) else 0
    buffered = config.buffered_records(request.record_bytes)
    largest = container_memory.worker(
        network=request.network,
        batch_size=config.batch_size,
        shuffle_buffer=0 if is_preloaded else buffered,
        record_bytes=request.record_bytes,
        whitened_values=whitened,
        preloaded_bytes=preloaded_bytes if is_preloaded else 0,
        on_gpu=config.num_gpus > 0,
    )
    if not beside:  # Static executors are all alike.
        ps = container_memory.parameter_server(**shape)
        largest = ContainerMemory(max(largest.heap, ps.heap), max(largest.overhead, ps.overhead))
    driver = container_memory.training_driver(**shape, ps_beside_driver=beside, whitened_values=whitened)
    settings = _driver(driver) | _executor(largest)
    settings["spark.executor.instances"] = str(topology.num_spark_executors)
    settings["spark.executor.cores"] = str(_EXECUTOR_CORES)
    settings["spark.scheduler.maxRegisteredResourcesWaitingTime"] = f"{config.start_timeout}s"
    return settings


def _driver(size: ContainerMemory) -> dict[str, str]:
    return {"spark.driver.memory": f"{size.heap}m", "spark.driver.memoryOverhead": f"{size.overhead}m"}


def _executor(size: ContainerMemory) -> dict[str, str]:
    return {"spark.executor.memory": f"{size.heap}m", "spark.executor.memoryOverhead": f"{size.overhead}m"}


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
    if request.command != "train":
        settings["spark.yarn.maxAppAttempts"] = "1"  # also for what starts from the profile of `train`
    # With Kerberos, Spark takes along tokens of the default file system alone, unless it is told of others.
    settings[_FILE_SYSTEMS] = ",".join(_file_systems(request))
    if shipped.python:
        for variable in ("spark.yarn.appMasterEnv.", "spark.executorEnv."):
            settings[variable + "PYSPARK_PYTHON"] = shipped.python
            settings[variable + "PYTHONNOUSERSITE"] = "1"  # Packages in a node's home folder are none of ours.
    return {key: value for key, value in settings.items() if value}


def _file_systems(request: Request) -> list[str]:
    """Those that the job's folders are on, where their URLs name them."""
    folders = [*paths(request.config).values(), *request.other_dirs, request.hdfs_dir]
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
    }
    return {key: value for key, value in settings.items() if value}


def parse_spark_args(args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The settings in the user's spark-submit flags, and the flags that are no settings.

    Raises:
      SettingsError: flags that are not for the user to give, or that are none of spark-submit's.
    """
    settings: dict[str, str] = {}
    passed_on: list[str] = []
    rest = list(args)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag in _NOT_YOURS:
            raise SettingsError(f"{flag} cannot be given after `--`", place=flag, next_step=_NOT_YOURS[flag])
        if not flag.startswith("-"):
            raise SettingsError(
                f"{flag!r} is no flag of spark-submit", place="after `--`", next_step="The command's own go before `--`"
            )
        if flag in _SWITCHES:
            passed_on.append(flag)
            continue
        if not equals:
            if not rest:
                raise SettingsError("needs a value", place=flag)
            value = rest.pop(0)
        if flag in ("--conf", "-c"):
            key, equals, value = value.partition("=")
            if not equals:
                raise SettingsError(f"{key!r} is not KEY=VALUE", place="--conf")
            settings[key] = value
        elif flag in _NAMED:
            settings[_NAMED[flag]] = value
        else:
            passed_on += [flag, value]
    return settings, passed_on


def _merge(own: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    settings = {**own, **theirs}
    for key in _LISTS:
        if key in own and key in theirs:
            settings[key] = f"{own[key]},{theirs[key]}"
    for key in ("spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions"):
        if key in own and key in theirs:
            settings[key] = f"{own[key]} {theirs[key]}"
    return settings


def _fill_executor(settings: dict[str, str], request: Request) -> None:
    """What has to follow the user's own choice: one task fills an executor, and has its GPUs."""
    config = request.config
    if request.command not in ("train", "doctor"):
        return
    settings.setdefault("spark.executor.cores", str(_EXECUTOR_CORES))
    settings["spark.task.cpus"] = settings["spark.executor.cores"]
    num_gpus = getattr(config, "num_gpus", 0)
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
