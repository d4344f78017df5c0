"""A probe of one process of a job: the driver, or a Python worker of an executor. It collects facts; `checks` judges.

A result is sent as JSON values, not pickled: the package's versions may differ between the two processes, and that is
one of the findings.
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
from tfos_job.host import gpus, memory, server_port

DRIVER, EXECUTOR = "driver", "executor"


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """The order for one probe.

    Attributes:
      token: part of the file names of this examination.
      place: existing folder for the storage trial; None: no trial.
      storage_timeout_s: time limit of the trial.
      port_range: first and last port of the range to count; None: any port.
      driver: address of the driver's time server; None on the driver itself, or if there is no server.
      list_gpus: True to call nvidia-smi, which may take seconds.
      deep: True to import TensorFlow, in a process of its own.
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
    """The facts about one process.

    Attributes:
      role: `driver` or `executor`.
      executor_id: of Spark; empty for the driver.
      container_id: of YARN; empty elsewhere.
      versions: by package; None for a package that is not installed.
      java: version of this process's JVM; None if it is unknown.
      clock_offset_s: lead of the clock over the driver's; None if the driver was not asked or not reached.
      driver_error: reason why the driver was not reached.
      gpus_assigned: addresses that Spark assigned to this process; None if Spark assigns no GPUs.
      gpus_listed: lines of `nvidia-smi -L`.
      tensorflow_gpus: GPUs that TensorFlow sees; None if TensorFlow was not imported.
      why_open: why every host could connect to a TensorFlow server here; empty if the kernel keeps strangers out.
      memory_limit_bytes: of the control group; None if it is not below the host's memory.
      seconds: duration of the probe.
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
    why_open: str = ""
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
        """The process in messages: `executor 2 on host a`."""
        who = f"{self.role} {self.executor_id}".rstrip()  # the executor of local Spark has no number
        container = f" ({self.container_id})" if self.container_id else ""
        return f"{who} on host {self.host}{container}"

    @property
    def key(self) -> str:
        """A key that all processes of one executor share."""
        return f"{self.host}/{self.executor_id or self.pid}"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def from_dict(values: Mapping[str, Any]) -> ProbeResult:
    """Reads the values of `ProbeResult.to_dict` of any version of this package; unknown fields are ignored."""
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


def run(
    request: ProbeRequest,
    role: str,
    *,
    pyspark_version: str,
    java: str | None = None,
    gpus_assigned: Sequence[str] | None = None,
) -> ProbeResult:
    """Collects the facts. A fact that cannot be determined is in the result as such, with the reason.

    Args:
      request: the facts to collect.
      role: `DRIVER` or `EXECUTOR`.
      pyspark_version: of this process.
      java: version of its JVM (default: read from /proc).
      gpus_assigned: addresses from Spark's resource API; None if it assigns none.
    """
    began_s = time.monotonic()
    host = socket.gethostname()
    jvm = machine.parent_jvm()
    executor_id = jvm.executor_id if jvm and role == EXECUTOR else ""
    facts = _clock_facts(request)
    if request.place is not None:
        name = f"{role}-{host}-{executor_id or os.getpid()}"
        facts["trial"] = trial.attempt(request.place, request.token, name, request.storage_timeout_s)
    facts |= _gpu_facts(request, gpus_assigned) | _token_facts()
    return ProbeResult(
        role=role,
        host=host,
        pid=jvm.pid if jvm and role == EXECUTOR else os.getpid(),
        executor_id=executor_id,
        container_id=os.environ.get("CONTAINER_ID", ""),
        versions={**machine.versions(), "pyspark": pyspark_version},
        java=java or (jvm.version if jvm else None),
        disk=machine.scratch_disk(),
        num_free_ports=machine.count_free_ports(request.port_range),
        why_open=server_port.try_out(),
        gpus_assigned=None if gpus_assigned is None else tuple(gpus_assigned),
        memory_limit_bytes=memory.limit_bytes(),
        host_memory_bytes=memory.host_bytes(),
        time_s=time.time(),
        seconds=round(time.monotonic() - began_s, 3),
        **facts,
    )


def _clock_facts(request: ProbeRequest) -> dict[str, Any]:
    if request.driver is None:
        return {}
    try:
        return {"clock_offset_s": clock.offset_s(request.driver)}
    except OSError as e:
        return {"driver_error": f"{request.driver[0]}:{request.driver[1]}: {e.strerror or e}"}


def _gpu_facts(request: ProbeRequest, assigned: Sequence[str] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if request.list_gpus:
        facts["gpus_listed"], facts["gpus_error"] = machine.list_gpus()
    if request.deep:
        visible = assigned
        if visible is None:  # all GPUs that were listed: none on the driver, which computes on no GPU
            numbers = [str(number) for number in range(len(facts.get("gpus_listed", ())))]
            visible = gpus.within(numbers, os.environ)
        facts["tensorflow_gpus"], facts["tensorflow_error"] = machine.tensorflow_gpus(visible)
    return facts


def _token_facts() -> dict[str, Any]:
    token_file = os.environ.get("HADOOP_TOKEN_FILE_LOCATION")
    if not token_file:
        return {}
    try:
        return {"tokens": tokens.read_file(token_file)}
    except SettingsError as e:
        return {"tokens_error": str(e)}


def own_executor() -> str:
    """Returns `ProbeResult.key` of the executor of this process."""
    jvm = machine.parent_jvm()
    who = (jvm.executor_id or str(jvm.pid)) if jvm else str(os.getpid())
    return f"{socket.gethostname()}/{who}"
