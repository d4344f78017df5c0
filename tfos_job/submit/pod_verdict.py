"""The verdict on the end of a driver's pod: from its state and the job's outcome to the submitter's error. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tfos_job.errors import (
    AccessError,
    JobError,
    MissingInputError,
    NodeDiedError,
    ResourceError,
    SettingsError,
    exit_code_class,
)
from tfos_job.submit.driver_pod import Container, DriverPod

_MEMORY = "Give it more: -- --conf spark.driver.memoryOverhead=…, or a larger -- --driver-memory"
_ANSWER = re.compile(r"Message: (.*?)\.? Received status: ")  # of KubernetesClientException
_SIGNALS = (130, 137, 143)
_CANNOT_START = (126, 127, 128)
_HEAP_IS_FULL = 52  # SparkExitCode.OOM
# Reasons for which a container waits. Those of the first table may pass by themselves, those of the second do not.
_PULLING = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError")
_WRONG = (
    "InvalidImageName",
    "ErrImageNeverPull",
    "SignatureValidationFailed",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
)

# What Spark's client says of a pod that was never made; the first match counts. The matched text is the fact.
_REFUSALS: tuple[tuple[str, type[JobError], str], ...] = (
    (r"[^\n]*exceeded quota[^\n]*", AccessError, "Ask for less, or have the namespace's quota raised"),
    (
        r"[^\n]*(?:Forbidden!|Unauthorized!|is forbidden:|Message: (?:Forbidden|Unauthorized)|reason=Forbidden)[^\n]*",
        AccessError,
        "Give --service_account, and see `kubectl auth can-i create pods`",
    ),
    (r'[^\n]*namespaces "[^"]*" not found[^\n]*', SettingsError, "Give another --namespace, or have it made"),
    (
        r"[^\n]*(?:reason=Invalid\b|is invalid:|reason=BadRequest|admission webhook [^\n]* denied)[^\n]*",
        SettingsError,
        "Check the pod templates and the flags after --",
    ),
    (
        r"[^\n]*(?:Could not load pod from template file|load initial pod spec from file)[^\n]*",
        SettingsError,
        "Check --driver_pod_template and --executor_pod_template",
    ),
    (
        r"[^\n]*(?:PKIX path|SSLHandshakeException|CertificateException|unable to find valid certification)[^\n]*",
        AccessError,
        "Give -- --conf spark.kubernetes.authenticate.caCertFile=…, or a kubeconfig of this cluster",
    ),
    (r"[^\n]*(?:FileNotFoundException|NoSuchFileException)[^\n]*", MissingInputError, "Check the flags after --"),
    (
        r"[^\n]*(?:Connection refused|ConnectException|UnknownHostException|NoRouteToHost|[tT]imed out|Timeout"
        r"|failed to resolve|reason=(?:InternalError|ServiceUnavailable|TooManyRequests|ServerTimeout)"
        r"|Message: Service Unavailable)[^\n]*",
        ResourceError,
        "See whether the API server is up, and --master has its address",
    ),
    (
        r"[^\n]*(?:IllegalArgumentException|SparkException|requirement failed|MalformedURL|URISyntax)[^\n]*",
        SettingsError,
        "Check --master, --image and the flags after --",
    ),
)


def judge(pod: DriverPod, code: int, outcome: Mapping[str, Any] | None, *, place: str) -> JobError | None:
    """Returns the submitter's error; None for success.

    Args:
      pod: its last state.
      code: exit code of spark-submit, which is 0 even if the driver failed.
      outcome: the job's own account (`outcome.Outcome`), or None.
      place: the cluster.
    """
    if not pod.name:
        return _refused(pod, code, place)
    place, look = pod.submission, _look(pod)
    if outcome is not None and outcome.get("exit_code") is not None:
        return _of_outcome(outcome, place, look)
    driver = pod.driver
    if driver is not None and driver.exit_code is not None:
        return _of_container(driver, place, look)
    if pod.is_gone:
        fact = "the driver's pod was deleted while it was at work"
        return NodeDiedError(
            fact, place=place, next_step="It was preempted, drained, evicted or removed: submit it again"
        )
    if pod.phase == "Succeeded":
        return None
    if pod.phase == "Failed":
        fact = "the driver's pod failed and its container tells no exit code: it was evicted, or its node refused it"
        return NodeDiedError(fact, place=place, next_step=look)
    return ResourceError(
        f"the end of the driver's pod is not known; it was {pod.phase or 'made'} and may go on",
        place=place,
        next_step=f"See it before you submit it again: {look}",
    )


def held_up(pod: DriverPod, *, waited_s: float, pull_s: float, accept_s: float) -> JobError | None:
    """Returns the error of a pod that has waited too long for its node or image; None if it may wait on.

    Args:
      pod: its last state.
      waited_s: seconds since it was made.
      pull_s: seconds that a container may have no image or cannot be made.
      accept_s: seconds that the pod may be without a running container.
    """
    driver, look = pod.driver, _look(pod)
    reason = driver.reason if driver and driver.state == "waiting" else ""
    if pod.has_ended or pod.phase not in ("Pending", ""):
        return None
    if waited_s > pull_s and reason in _WRONG:
        fact = f"the driver's container cannot be made: {reason}"
        return SettingsError(fact, place=pod.submission, next_step=f"Check --image and the pod template. {look}")
    if waited_s > pull_s and reason in _PULLING:
        fact = f"the image cannot be pulled: {reason}"
        return ResourceError(fact, place=pod.submission, next_step=f"Check --image and its registry. {look}")
    if waited_s > accept_s:
        fact = f"no node has taken the driver's pod in {accept_s:.0f} s"
        if pod.node:
            fact = f"the driver's container does not run on {pod.node} after {accept_s:.0f} s"
        return ResourceError(fact, place=pod.submission, next_step=f"See what it waits for: {look}")
    return None


def _of_outcome(outcome: Mapping[str, Any], place: str, look: str) -> JobError | None:
    code = outcome["exit_code"]
    if code == 0:
        return None
    if code in _SIGNALS:  # not by this command, which would have said so
        return _killed(code, place, look)
    words = outcome.get("error") or {"fact": f"the job ended with exit code {code}", "place": place, "next_step": look}
    return exit_code_class(code)(**words)


def _of_container(driver: Container, place: str, look: str) -> JobError | None:
    code = driver.exit_code or 0
    if code == 0:
        return None
    if driver.reason == "OOMKilled":
        return NodeDiedError("the driver's container ran out of its memory (OOMKilled)", place=place, next_step=_MEMORY)
    if code in _SIGNALS:
        return _killed(code, place, look)
    if code in _CANNOT_START or driver.reason in ("StartError", "ContainerCannotRun"):
        fact = f"the driver's container did not start ({driver.reason}, exit code {code})"
        return SettingsError(fact, place=place, next_step=f"Check --image: spark/kubernetes/Dockerfile. {look}")
    if code == _HEAP_IS_FULL:
        fact = f"the heap of the driver's JVM is full (exit code {code})"
        return JobError(fact, place=place, next_step="Give -- --driver-memory more")
    fact = f"the driver exited with {code} and left no outcome"
    return exit_code_class(code)(fact, place=place, next_step=look)


def _killed(code: int, place: str, look: str) -> JobError:
    return NodeDiedError(
        f"the driver's container was killed (exit code {code})",
        place=place,
        next_step=f"If it was not preempted, drained or deleted, it ran out of memory. {look}",
    )


def _refused(pod: DriverPod, code: int, place: str) -> JobError:
    for pattern, kind, next_step in _REFUSALS:
        if found := re.search(pattern, pod.said):
            return kind(_clean(found[0]), place=place, next_step=next_step)
    if code == 0:
        fact = "spark-submit ended well and named no pod"
        return ResourceError(fact, place=place, next_step="See `kubectl get pods -l spark-role=driver` first")
    if code < 0:
        return NodeDiedError(f"spark-submit was killed by signal {-code}", place=place, next_step="Submit it again")
    last = next((line.strip() for line in reversed(pod.said.splitlines()) if line.strip()), "spark-submit said nothing")
    return JobError(f"nothing was submitted: {last}", place=place, next_step="Check --master and the flags after --")


def _look(pod: DriverPod) -> str:
    return f"kubectl -n {pod.namespace} describe pod {pod.name}; kubectl -n {pod.namespace} logs {pod.name}"


def _clean(text: str) -> str:
    """The API server's message, if it answered; else the text without the class of a Java exception before it."""
    answer = _ANSWER.search(text)
    return answer[1] if answer else re.sub(r"^.*?(?:Exception|Error): ", "", text.strip()).rstrip(".")
