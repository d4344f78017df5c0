"""State of the driver's pod, read from spark-submit's log and from `spark-submit --status`. Pure.

The texts are those of Spark 4.3: `LoggingPodStatusWatcherImpl`, `KubernetesUtils.formatPodState` and `ListStatus`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tfos_job.submit.application_state import TAIL_LINES

DRIVER = "spark-kubernetes-driver"
_OF_JAVA = ("\tat ", "\t... ", "WARNING: ")
_ENDS = ("Succeeded", "Failed")
_BEGINS = ("State changed, new state:", "Container final statuses:", "Application status (driver):")
_GONE = ("State changed, new state: unknown", "Application not found.")
_IDS = re.compile(r"application ID (spark-\S+) and submission ID (\S+)")
_SELECTOR = re.compile(r"\bspark-app-selector -> ([^\s,]+)")
# A detail that is not known reads N/A.
_DETAIL = re.compile(
    r"^\s+(pod name|namespace|labels|node name|phase|container name|container state|pending reason|exit code|"
    r"termination reason): (.*)$"
)


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container of the pod.

    Attributes:
      state: `waiting`, `running` or `terminated`; empty if it is not known.
      reason: why it waits or has ended, in Kubernetes' words.
      exit_code: None while it has not ended.
    """

    name: str
    state: str = ""
    reason: str = ""
    exit_code: int | None = None


@dataclass
class DriverPod:
    """The observed state of the driver's pod.

    Attributes:
      namespace: its namespace.
      name: its name; empty until Spark has made it.
      application: Spark's id of the application.
      node: the node that it is bound to; empty if there is none.
      phase: the last one that was seen: Pending, Running, Succeeded, Failed, Unknown.
      is_gone: the pod has been deleted.
      tail: last lines that spark-submit wrote, without those of Java's stacks.
    """

    namespace: str = ""
    name: str = ""
    application: str = ""
    node: str = ""
    phase: str = ""
    is_gone: bool = False
    tail: list[str] = field(default_factory=list)
    _containers: list[dict[str, str]] = field(default_factory=list)

    def hear(self, line: str) -> None:
        """Reads one line that spark-submit wrote."""
        if not line.startswith(_OF_JAVA):  # the stacks of one error are longer than the tail
            self.tail = [*self.tail, line.rstrip()][-TAIL_LINES:]
        if any(words in line for words in _GONE):
            self.is_gone = True
        elif any(words in line for words in _BEGINS):
            self._containers = []
        elif found := _IDS.search(line):
            self.application = found[1]
            self.namespace, _, self.name = found[2].partition(":")
        elif found := _DETAIL.match(line):
            self._learn(found[1], found[2].strip().replace("N/A", ""))

    def _learn(self, name: str, value: str) -> None:
        if name == "pod name":
            self.name = value
        elif name == "namespace":
            self.namespace = value
        elif name == "labels" and (found := _SELECTOR.search(value)):
            self.application = found[1]
        elif name == "node name":
            self.node = value
        elif name == "phase":
            self.phase = value
        elif name == "container name":
            self._containers.append({"name": value})
        elif self._containers:
            self._containers[-1][name] = value

    @property
    def submission(self) -> str:
        """What `spark-submit --status` and `--kill` take; empty until Spark has made the pod."""
        return f"{self.namespace}:{self.name}" if self.name else ""

    @property
    def has_ended(self) -> bool:
        return self.is_gone or self.phase in _ENDS

    @property
    def driver(self) -> Container | None:
        """The driver's container: the one of Spark's name; of other names, one that failed before one that did not."""
        found = [_container(values) for values in self._containers]
        named = [each for each in found if each.name == DRIVER]
        failed = [each for each in found if each.exit_code]
        return next(iter([*named, *failed, *found]), None)

    @property
    def said(self) -> str:
        """The last lines of spark-submit."""
        return "\n".join(self.tail)


def _container(values: dict[str, str]) -> Container:
    code = values.get("exit code", "")
    return Container(
        name=values["name"],
        state=values.get("container state", ""),
        reason=values.get("pending reason") or values.get("termination reason") or "",
        exit_code=int(code) if code.isdecimal() else None,
    )
