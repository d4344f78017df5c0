"""The end of a driver's pod: what Spark 4.3 logs, and what is made of it.

The texts are what Spark's own client logged to `tests/pod_server.py`, a stand-in for the API server, and shortened; no
cluster was there. tests/cluster/test_kubernetes.py has Spark write them anew.
"""

from __future__ import annotations

from typing import Any

import pytest

from tfos_job.errors import JobError
from tfos_job.submit import pod_verdict
from tfos_job.submit.driver_pod import DriverPod

PLACE = "k8s://https://api"
CHANGED = """\
26/12/01 11:09:43 INFO LoggingPodStatusWatcherImpl: State changed, new state:\x20
\t pod name: tfos-job-train-7bd242-driver
\t namespace: ml
\t labels: spark-version -> 4.3.0, spark-app-selector -> spark-b5428cec, spark-app-name -> tfos-job-train
\t pod uid: 1c2e
\t creation time: 2026-11-29T08:00:00Z
\t service account name: tfos-job
\t volumes: spark-local-dir-1, spark-conf-volume-driver
\t node name: {node}
\t start time: N/A
\t phase: {phase}
\t container status: {containers}
"""
CONTAINER = """
\t\t container name: {name}
\t\t container image: registry/tfos:1
\t\t container state: terminated
\t\t container started at: 2026-11-29T08:00:00Z
\t\t container finished at: 2026-11-29T08:00:00Z
\t\t exit code: {code}
\t\t termination reason: {reason}

"""
WAITING = """
\t\t container name: spark-kubernetes-driver
\t\t container image: registry/tfos:1
\t\t container state: waiting
\t\t pending reason: {reason}
"""
FINISHED = (
    "26/12/01 11:09:43 INFO LoggingPodStatusWatcherImpl: Application tfos_job train hdfs:///x with application ID "
    "spark-b5428cec and submission ID ml:tfos-job-train-7bd242-driver finished\n"
)
DELETED = """\
26/12/01 11:11:20 INFO LoggingPodStatusWatcherImpl: State changed, new state: unknown
26/12/01 11:11:20 INFO LoggingPodStatusWatcherImpl: No containers were found in the driver pod.
"""
REFUSED = (
    'Exception in thread "main" io.fabric8.kubernetes.client.KubernetesClientException: Failure executing: POST at: '
    "http://127.0.0.1:43755/api/v1/namespaces/ml/pods. Message: {message}. Received status: Status(apiVersion=v1, "
    "code={code}, details=null, kind=Status, message={message}, metadata=null, reason={reason}, status=Failure, "
    "additionalProperties={{}}).\n"
    + "\tat io.fabric8.kubernetes.client.KubernetesClientException.copyAsCause(KubernetesClientException.java:238)\n"
    * 99
    + "\t... 9 more\n"
)


def ended(code: int, reason: str = "Error", name: str = "spark-kubernetes-driver") -> str:
    return CONTAINER.format(code=code, reason=reason, name=name)


def changed(phase: str, containers: str = "N/A", node: str = "node7") -> str:
    return CHANGED.format(phase=phase, containers=containers, node=node)


def pod_of(*texts: str) -> DriverPod:
    pod = DriverPod()
    for line in "".join(texts).splitlines():
        pod.hear(line)
    return pod


def judged(*texts: str, code: int = 0, outcome: dict[str, Any] | None = None) -> JobError | None:
    return pod_verdict.judge(pod_of(*texts), code, outcome, place=PLACE)


def outcome(exit_code: int | None, **error: str) -> dict[str, Any]:
    return {"exit_code": exit_code, "error": error or None, "attempt": 1, "results": []}


def test_what_is_read_of_a_pod() -> None:
    pod = pod_of(changed("Pending", node="N/A"))
    assert (pod.submission, pod.application, pod.node) == ("ml:tfos-job-train-7bd242-driver", "spark-b5428cec", "")
    assert not pod.has_ended
    pod = pod_of(changed("Pending"), changed("Failed", ended(1, name="proxy") + ended(65)), FINISHED)
    assert (pod.phase, pod.node, pod.has_ended) == ("Failed", "node7", True)
    assert pod.driver is not None
    assert (pod.driver.name, pod.driver.exit_code) == ("spark-kubernetes-driver", 65)
    detached = pod_of(FINISHED.replace(" finished", " into Kubernetes"))
    assert detached.submission == "ml:tfos-job-train-7bd242-driver"


@pytest.mark.parametrize(
    ("container", "exit_code", "words"),
    [
        (ended(65), 65, "the driver exited with 65 and left no outcome"),
        (ended(78), 78, "exited with 78"),
        (ended(2), 2, "exited with 2"),
        (ended(75), 75, "exited with 75"),
        (ended(1), 70, "exited with 1"),
        (ended(52), 70, "--driver-memory"),
        (ended(137, "OOMKilled"), 71, "spark.driver.memoryOverhead"),
        (ended(137), 71, "was killed (exit code 137)"),
        (ended(143), 71, "was killed (exit code 143)"),
        (ended(128, "StartError"), 78, "did not start (StartError, exit code 128)"),
        (ended(127, "ContainerCannotRun"), 78, "--image"),
        (ended(1, name="proxy") + ended(66), 66, "exited with 66"),  # a sidecar is none of ours
        ("N/A", 71, "evicted"),
    ],
)
def test_the_exit_code_of_a_failed_pod(container: str, exit_code: int, words: str) -> None:
    error = judged(changed("Running"), changed("Failed", container), FINISHED)
    assert error is not None
    assert error.exit_code == exit_code
    assert words in str(error)
    assert error.place == "ml:tfos-job-train-7bd242-driver"


def test_a_pod_that_succeeded() -> None:
    assert judged(changed("Succeeded", ended(0, "Completed")), FINISHED) is None
    assert judged(changed("Succeeded")) is None
    assert judged(changed("Running", ended(0, "Completed") + ended(1, name="proxy"))) is None
    # Deleted after its end, as some clusters do at once.
    assert judged(changed("Succeeded", ended(0, "Completed")), DELETED) is None


def test_a_deleted_pod_is_no_success_though_spark_submit_ends_with_0() -> None:
    error = judged(changed("Running"), DELETED, FINISHED)
    assert error is not None
    assert (error.exit_code, error.fact) == (71, "the driver's pod was deleted while it was at work")
    assert judged(changed("Running"), DELETED, outcome=outcome(0)) is None
    asked = judged(changed("Running"), "Application not found.\n")
    assert asked is not None
    assert asked.exit_code == 71


def test_the_jobs_own_account_is_believed_first() -> None:
    told = outcome(65, fact="damaged", place="shard 3, byte 17", next_step="Convert again")
    for end in (changed("Failed", ended(137, "OOMKilled")), changed("Failed"), DELETED):
        error = judged(changed("Running"), end, outcome=told)
        assert error is not None
        assert (error.exit_code, str(error)) == (65, "shard 3, byte 17: damaged. Convert again")
    running = judged(changed("Failed", ended(78)), outcome=outcome(None))
    assert running is not None
    assert running.exit_code == 78
    # SIGTERM is what a drained or preempted pod gets.
    stopped = judged(changed("Failed", ended(143)), outcome=outcome(143, fact="stopped by SIGTERM"))
    assert stopped is not None
    assert stopped.exit_code == 71


def test_a_pod_that_nobody_saw_end() -> None:
    error = judged(changed("Running"))
    assert error is not None
    assert error.exit_code == 69
    assert "may go on" in error.fact


@pytest.mark.parametrize(
    ("said", "exit_code", "fact"),
    [
        (("pods is forbidden: User x cannot create resource pods", 403, "Forbidden"), 77, "pods is forbidden: User x"),
        (('pods "x" is forbidden: exceeded quota: compute', 403, "Forbidden"), 77, "exceeded quota: compute"),
        (('Pod "x" is invalid: spec.containers[0]: Invalid value', 422, "Invalid"), 78, 'Pod "x" is invalid'),
        (('namespaces "ml" not found', 404, "NotFound"), 78, 'namespaces "ml" not found'),
        (("etcdserver: request timed out", 500, "InternalError"), 69, "etcdserver: request timed out"),
        (("too many requests", 429, "TooManyRequests"), 69, "too many requests"),
    ],
)
def test_a_pod_that_is_refused(said: tuple[str, int, str], exit_code: int, fact: str) -> None:
    message, code, reason = said
    error = judged(REFUSED.format(message=message, code=code, reason=reason), code=1)
    assert error is not None
    assert error.exit_code == exit_code
    assert fact in error.fact
    assert "Received status" not in error.fact
    assert "\n" not in error.fact


@pytest.mark.parametrize(
    ("said", "code", "exit_code"),
    [
        ("Caused by: java.net.UnknownHostException: api: Name or service not known", 1, 69),
        ("Caused by: java.net.ConnectException: Connection refused", 1, 69),
        ("ERROR KubernetesUtils: Encountered exception while attempting to load initial pod spec from file", 1, 78),
        ("Caused by: sun.security.validator.ValidatorException: PKIX path building failed", 1, 77),
        ('Exception in thread "main" java.lang.IllegalArgumentException: requirement failed', 1, 78),
        ("something new", 1, 70),
        ("", 1, 70),
        ("", -9, 71),
        ("", 0, 69),  # whether there is a pod is not known
    ],
)
def test_what_was_never_submitted(said: str, code: int, exit_code: int) -> None:
    error = judged(said, code=code)
    assert error is not None
    assert error.exit_code == exit_code


@pytest.mark.parametrize(
    ("text", "waited_s", "exit_code"),
    [
        (changed("Pending", node="N/A"), 3599, None),
        (changed("Pending", node="N/A"), 3601, 69),
        (changed("Pending", WAITING.format(reason="ContainerCreating")), 3599, None),
        (changed("Pending", WAITING.format(reason="ContainerCreating")), 3601, 69),
        (changed("Pending", WAITING.format(reason="ImagePullBackOff")), 299, None),
        (changed("Pending", WAITING.format(reason="ImagePullBackOff")), 301, 69),
        (changed("Pending", WAITING.format(reason="ErrImagePull")), 301, 69),
        (changed("Pending", WAITING.format(reason="InvalidImageName")), 301, 78),
        (changed("Pending", WAITING.format(reason="CreateContainerConfigError")), 301, 78),
        (changed("Running"), 9999, None),
        (changed("Failed", ended(65)), 9999, None),
    ],
)
def test_a_pod_waits_for_so_long(text: str, waited_s: float, exit_code: int | None) -> None:
    error = pod_verdict.held_up(pod_of(text), waited_s=waited_s, pull_s=300, accept_s=3600)
    assert (error and error.exit_code) == exit_code
