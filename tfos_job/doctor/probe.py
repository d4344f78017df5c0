"""What one process of a job sees: the driver, or the Python beside an executor. Facts alone; `diagnosis` judges them.

A sight travels as JSON values, never pickled: the two ends may be of different versions, which is one of the things
that an examination is to find out.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.doctor import clock, machine, tokens, trial
from tfos_job.doctor.machine import Disk
from tfos_job.doctor.tokens import Token
from tfos_job.doctor.trial import Trial
from tfos_job.errors import SettingsError
from tfos_job.host import gpus

DRIVER, EXECUTOR = "driver", "executor"


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """What a process is asked to look at.

    Attributes:
      token: names the files of this examination.
      place: an existing folder to try the file system in; None for no trial.
      storage_timeout_s: for that trial.
      port_range: first and last port to count the free ones of; None for any port.
      driver: where the driver tells its time; None for the driver itself, or where it cannot.
      list_gpus: whether to ask nvidia-smi, which may take seconds.
      deep: whether to import TensorFlow, in a process of its own.
    """

    token: str
    place: str | None = None
    storage_timeout_s: float = 30.0
    port_range: tuple[int, int] | None = None
    driver: clock.Address | None = None
    list_gpus: bool = False
    deep: bool = False


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What one process sees.

    Attributes:
      role: `driver` or `executor`.
      executor_id: Spark's; empty for the driver.
      container_id: YARN's; empty elsewhere.
      versions: by package; None for one that is not there.
      java: version of the JVM this process belongs to; None where it is not known.
      clock_offset_s: how far the clock is ahead of the driver's; None where the driver was not asked or not reached.
      driver_error: why it was not reached.
      gpus_assigned: addresses that Spark has given this process; None where Spark gives no GPUs at all.
      gpus_listed: a line of `nvidia-smi -L` each.
      tensorflow_gpus: what TensorFlow sees; None where it was not asked.
      memory_limit_bytes: of the control group; None where there is none below the host's memory.
      seconds: that the look took.
    """

    role: str
    host: str
    pid: int
    executor_id: str = ""
    container_id: str = ""
    versions: dict[str, str | None] = dataclasses.field(default_factory=dict)
    java: str | None = None
    clock_offset_s: float | None = None
    driver_error: str = ""
    disk: Disk | None = None
    trial: Trial | None = None
    num_free_ports: int = 0
    gpus_assigned: tuple[str, ...] | None = None
    gpus_listed: tuple[str, ...] = ()
    gpus_error: str = ""
    tensorflow_gpus: tuple[str, ...] | None = None
    tensorflow_error: str = ""
    memory_limit_bytes: int | None = None
    host_memory_bytes: int = 0
    tokens: tuple[Token, ...] = ()
    tokens_error: str = ""
    time_s: float = 0.0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """`executor 2 on host a`, for messages."""
        who = f"{self.role} {self.executor_id}".rstrip()  # local Spark's one executor has no number
        container = f" ({self.container_id})" if self.container_id else ""
        return f"{who} on host {self.host}{container}"

    @property
    def key(self) -> str:
        """The same for each process of one executor."""
        return f"{self.host}/{self.executor_id or self.pid}"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def from_dict(values: Mapping[str, Any]) -> ProbeResult:
    """The inverse of `ProbeResult.to_dict`, from any version of this package; unknown fields are left out."""
    known = {field.name for field in dataclasses.fields(ProbeResult)}
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key in known:
            fields[key] = tuple(value) if isinstance(value, list) else value
    for key, kind in (("disk", Disk), ("trial", Trial)):
        if fields.get(key) is not None:
            fields[key] = _build(kind, fields[key])
    fields["tokens"] = tuple(_build(Token, token) for token in fields.get("tokens", ()))
    return ProbeResult(**fields)


def _build(kind: type[Any], values: Mapping[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in values.items() if key in known})


def look(
    question: ProbeRequest,
    role: str,
    *,
    pyspark_version: str,
    java: str | None = None,
    gpus_assigned: Sequence[str] | None = None,
) -> ProbeResult:
    """Looks around. What cannot be seen is in the sight as such, with the reason.

    Args:
      question: what to look at.
      role: `DRIVER` or `EXECUTOR`.
      pyspark_version: of this process.
      java: version of its JVM, where the caller knows better than /proc.
      gpus_assigned: addresses from Spark's resource API; None where it assigns none.
    """
    began_s = time.monotonic()
    host = socket.gethostname()
    jvm = machine.parent_jvm()
    executor_id = jvm.executor_id if jvm and role == EXECUTOR else ""
    facts: dict[str, Any] = {}
    if question.driver is not None:
        try:
            facts["clock_offset_s"] = clock.offset_s(question.driver)
        except OSError as e:
            facts["driver_error"] = f"{question.driver[0]}:{question.driver[1]}: {e.strerror or e}"
    if question.place is not None:
        name = f"{role}-{host}-{executor_id or os.getpid()}"
        facts["trial"] = trial.attempt(question.place, question.token, name, question.storage_timeout_s)
    if question.list_gpus:
        facts["gpus_listed"], facts["gpus_error"] = machine.list_gpus()
    if question.deep:
        visible = gpus_assigned
        if visible is None:  # what there is, but for the driver, which computes on no GPU
            numbers = [str(number) for number in range(len(facts.get("gpus_listed", ())))]
            visible = gpus.within(numbers, os.environ)
        facts["tensorflow_gpus"], facts["tensorflow_error"] = machine.tensorflow_gpus(visible)
    token_file = os.environ.get("HADOOP_TOKEN_FILE_LOCATION")
    if token_file:
        try:
            facts["tokens"] = tokens.read_file(token_file)
        except SettingsError as e:
            facts["tokens_error"] = str(e)
    return ProbeResult(
        role=role,
        host=host,
        pid=jvm.pid if jvm and role == EXECUTOR else os.getpid(),
        executor_id=executor_id,
        container_id=os.environ.get("CONTAINER_ID", ""),
        versions={**machine.versions(), "pyspark": pyspark_version},
        java=java or (jvm.version if jvm else None),
        disk=machine.scratch_disk(),
        num_free_ports=machine.count_free_ports(question.port_range),
        gpus_assigned=None if gpus_assigned is None else tuple(gpus_assigned),
        memory_limit_bytes=machine.memory_limit_bytes(),
        host_memory_bytes=machine.host_memory_bytes(),
        time_s=time.time(),
        seconds=round(time.monotonic() - began_s, 3),
        **facts,
    )


def own_executor() -> str:
    """`ProbeResult.key` of the executor that this process belongs to."""
    jvm = machine.parent_jvm()
    who = (jvm.executor_id or str(jvm.pid)) if jvm else str(os.getpid())
    return f"{socket.gethostname()}/{who}"
