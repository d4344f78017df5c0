"""`doctor`'s checks as a function: the checks that follow from probe results."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tfos_job.doctor.case import Cluster, Expected
from tfos_job.doctor.checks import diagnose
from tfos_job.doctor.diagnosis import FAILED, NOT_TRIED, OK, WARNING, Check, Diagnosis, failed
from tfos_job.doctor.host_memory import MIB, Container
from tfos_job.doctor.machine import Disk
from tfos_job.doctor.probe import ProbeResult, from_dict
from tfos_job.doctor.tokens import Token
from tfos_job.doctor.trial import Trial
from tfos_job.errors import AccessError, ResourceError, SettingsError, StorageError

GIB = 1 << 30
NOW_S = 1_795_000_000.0
VERSIONS = {"python": "3.11.7", "pyspark": "4.3.0", "tensorflow": "2.21.0", "numpy": "2.4.6", "tfos_job": "0.1.0"}
TRIAL = Trial(place="hdfs://h/run", seconds=0.1, clock_offset_s=0.01)
CLUSTER = Cluster(
    master="yarn",
    spark_version="4.3.0",
    num_registered=2,
    executor=Container(memory_mb=2048, overhead_mb=384),
    driver=Container(memory_mb=1024, overhead_mb=384),
    yarn_limit_mb=8192,
)
EXPECTED = Expected(num_executors=2, folder="hdfs://h/run")


def result_of(role: str, number: int, **changes: Any) -> ProbeResult:
    values: dict[str, Any] = {
        "role": role,
        "host": f"h{number}",
        "pid": 100 + number,
        "executor_id": str(number) if role == "executor" else "",
        "versions": VERSIONS,
        "java": "17.0.15",
        "clock_offset_s": 0.001 if role == "executor" else None,
        "disk": Disk("/tmp", 1, 50 * GIB),
        "trial": TRIAL,
        "num_free_ports": 10,
        "host_memory_bytes": 64 * GIB,
        "time_s": NOW_S,
    }
    return ProbeResult(**{**values, **changes})


def look(
    expected: Expected = EXPECTED, cluster: Cluster = CLUSTER, *, driver: dict[str, Any] | None = None, **changes: Any
) -> tuple[Check, ...]:
    """Checks of a driver on h0 and executors on h1 and h2, of which `changes` are executor 2's."""
    executors = [result_of("executor", 1), result_of("executor", 2, **changes)]
    return diagnose(expected, cluster, result_of("driver", 0, **(driver or {})), executors)


def not_ok(checks: tuple[Check, ...]) -> list[Check]:
    return [check for check in checks if check.state in (FAILED, WARNING)]


def only(checks: tuple[Check, ...]) -> Check:
    (check,) = not_ok(checks)
    return check


def test_a_healthy_cluster_has_nothing_but_ok() -> None:
    checks = look()
    assert {check.state for check in checks} == {OK}
    assert [check.name for check in checks] == [
        "executors", "python", "packages", "spark", "java", "network", "clock", "storage", "tokens", "disk", "gpu",
        "ports", "isolation", "memory",
    ]  # fmt: skip


def test_without_a_folder_storage_is_not_tried() -> None:
    checks = look(driver={"trial": None}, trial=None)
    assert [check.state for check in checks if check.name == "storage"] == [OK]  # executor 1 has tried
    nobody = diagnose(EXPECTED, CLUSTER, result_of("driver", 0, trial=None), [result_of("executor", 1, trial=None)] * 2)
    assert [check.name for check in nobody if check.state == NOT_TRIED] == ["storage"]


def has(**versions: str | None) -> dict[str, Any]:
    return {"versions": {**VERSIONS, **versions}}


def tried(seconds: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {"trial": Trial(place="p", seconds=seconds, **changes)}


NO_TENSORFLOW = {"tensorflow_gpus": (), "tensorflow_error": "importing TensorFlow ends with 1: no"}


@pytest.mark.parametrize(
    ("changes", "name", "state", "code", "words"),
    [
        (has(python="3.12.1"), "python", FAILED, 78, ("3.11.7 at driver", "3.12.1 at executor 2 on host h2")),
        (has(python="3.11.9"), "python", WARNING, 0, ("3.11.9 at executor 2 on host h2",)),
        (has(numpy="2.4.5"), "packages", FAILED, 78, ("numpy", "2.4.6 at driver", "2.4.5 at executor 2")),
        (has(tensorflow=None), "packages", FAILED, 78, ("tensorflow", "none at executor 2")),
        (has(pyspark="4.0.1"), "spark", FAILED, 78, ("4.0.1 at executor 2",)),
        (has(pyspark="4.3.1"), "spark", WARNING, 0, ("4.3.1 at executor 2",)),
        ({"java": "1.8.0_402"}, "java", FAILED, 78, ("17 or later", "1.8.0_402 at executor 2")),
        ({"java": "21.0.1"}, "java", WARNING, 0, ("17.0.15 at driver", "21.0.1 at executor 2")),
        ({"java": None}, "java", WARNING, 0, ("unknown at executor 2",)),
        ({"driver_error": "h0:4: timed out", "clock_offset_s": None}, "network", FAILED, 69, ("h0:4: timed out",)),
        ({"clock_offset_s": 3.0}, "clock", WARNING, 0, ("3.0 s ahead of the driver's clock",)),
        ({"clock_offset_s": -90.0}, "clock", FAILED, 78, ("90.0 s behind the driver's clock",)),
        (tried(clock_offset_s=100.0), "clock", FAILED, 78, ("100.0 s behind the file system's",)),
        (tried(error="p: refused", exit_code=77), "storage", FAILED, 77, ("p: refused",)),
        (tried(30.0, error="p: gone", exit_code=74), "storage", FAILED, 74, ("p: gone",)),
        (tried(20.0), "storage", WARNING, 0, ("20.00 s",)),
        ({"disk": Disk("/data", 1, GIB // 2)}, "disk", FAILED, 69, ("0.50 GiB free in /data, 1.00 GiB needed",)),
        ({"num_free_ports": 0}, "ports", FAILED, 69, ("0 free, 1 needed",)),
        ({"why_open": "no filter"}, "isolation", WARNING, 0, ("any host could use a TensorFlow server: no filter",)),
        ({"memory_limit_bytes": 2000 * MIB}, "memory", FAILED, 78, ("2000 MiB", "2432 MiB (2048 and 384 overhead)")),
        ({"host_memory_bytes": 2 * GIB}, "memory", WARNING, 0, ("1 executors of 2432 MiB", "host of 2048 MiB")),
        ({"tokens_error": "/t: bad"}, "tokens", FAILED, 78, ("/t: bad",)),
        (NO_TENSORFLOW, "tensorflow", FAILED, 78, ("no",)),
    ],
)  # fmt: skip
def test_one_executor_that_differs_is_named(
    changes: dict[str, Any], name: str, state: str, code: int, words: tuple[str, ...]
) -> None:
    check = only(look(**changes))
    assert (check.name, check.state, check.exit_code) == (name, state, code)
    assert "h2" in str(check)
    for word in words:
        assert word in str(check)


def test_isolation_that_is_required_is_a_failure_that_no_retry_helps() -> None:
    checks = look(dataclasses.replace(EXPECTED, require_isolation=True), why_open="no filter")
    assert (only(checks).name, only(checks).state, only(checks).exit_code) == ("isolation", FAILED, 78)
    assert "--require_isolation" in only(checks).next_step


def test_all_failures_are_named_and_the_permanent_one_gives_the_code() -> None:
    checks = look(
        num_free_ports=0,
        disk=Disk("/tmp", 1, 0),
        versions={**VERSIONS, "numpy": "1", "tensorflow": "2"},
        trial=Trial(place="p", seconds=1.0, error="p: gone", exit_code=74),
    )
    diagnosis = Diagnosis(checks=checks, driver=result_of("driver", 0), executors=(), seconds=1.0)
    with pytest.raises(SettingsError) as caught:
        diagnosis.raise_for_failures()
    assert caught.value.fact.startswith("5 of 15 checks failed: ")
    for word in ("numpy", "tensorflow", "storage: executor 2 on host h2: p: gone", "disk: ", "ports: host h2"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(text in diagnosis.table() for text in ("FAILED", "→ Install the same environment", "p: gone"))
    assert json.loads(json.dumps(diagnosis.to_dict()))["exit_code"] == 78


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ((), 0),
        ((ResourceError,), 69),
        ((ResourceError, StorageError), 74),
        ((StorageError, AccessError, ResourceError), 77),
        ((AccessError, ResourceError, SettingsError), 78),
    ],
)
def test_what_no_retry_helps_comes_first(kinds: tuple[Any, ...], code: int) -> None:
    checks = tuple(failed("x", kind, "fact") for kind in kinds)
    assert Diagnosis(checks=checks, driver=result_of("driver", 0), executors=(), seconds=0).exit_code == code


# --- executors -------------------------------------------------------------------------------------------------------


def test_fewer_executors_than_asked_for() -> None:
    fact = "2 of 3 executors have come (1 on h1, 1 on h2) within 5 s; queue gpu has 0 of 1 yarn.io/gpu free"
    cluster = dataclasses.replace(CLUSTER, missing=fact)
    executors = [result_of("executor", 1), result_of("executor", 2)]
    check = only(diagnose(Expected(num_executors=3), cluster, result_of("driver", 0), executors))
    assert (check.name, check.exit_code, check.fact) == ("executors", 69, fact)


def test_executors_that_came_and_did_not_answer() -> None:
    checks = diagnose(EXPECTED, CLUSTER, result_of("driver", 0), [result_of("executor", 2)])
    assert only(checks).fact == "2 came, 1 answered: executor 2 on host h2"


def test_slots_of_local_spark() -> None:
    cluster = Cluster(master="local[2]", spark_version="4.3.0", num_slots=2, in_driver=True, num_registered=1)
    checks = diagnose(
        Expected(num_executors=3), cluster, result_of("driver", 0), [result_of("executor", 0, executor_id="")]
    )
    assert (only(checks).exit_code, only(checks).fact) == (78, "2 slots for 3 nodes")


# --- GPUs ------------------------------------------------------------------------------------------------------------

GPU = ("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)",)  # one on each host


def gpu_checks(expected: Expected, *seen: tuple[tuple[str, ...] | None, tuple[str, ...]]) -> tuple[Check, ...]:
    executors = [
        result_of(
            "executor", i, gpus_assigned=given, gpus_listed=listed, gpus_error="" if listed else "nvidia-smi lists none"
        )
        for i, (given, listed) in enumerate(seen)
    ]
    cluster = dataclasses.replace(CLUSTER, num_registered=len(seen))
    return diagnose(expected, cluster, result_of("driver", 9), executors)


def test_gpus_assigned_and_seen() -> None:
    expected = Expected(num_executors=2, num_gpus=1)
    assert not not_ok(gpu_checks(expected, (("0",), GPU), (("1",), GPU)))
    neither = only(gpu_checks(expected, (None, GPU), (None, ())))
    assert (neither.exit_code, len(neither.where)) == (69, 2)
    assert "Spark assigned 0 GPUs, 1 wanted" in neither.fact
    unseen = only(gpu_checks(expected, (("0",), GPU), (("1",), ())))
    assert str(unseen) == "executor 1 on host h1: Spark assigned GPU 1, but nvidia-smi lists none"
    both = not_ok(gpu_checks(expected, (None, GPU), (("1",), ())))
    assert [check.state for check in both] == [FAILED, FAILED]
    allowed = dataclasses.replace(expected, allow_cpu=True)
    assert only(gpu_checks(allowed, (("0",), GPU), (("1",), ()))).state == WARNING


def test_one_gpu_for_two_executors() -> None:
    lines = tuple(f"GPU {i}: NVIDIA H100 80GB HBM3 (UUID: GPU-{i})" for i in range(2))
    executors = [result_of("executor", i, host="h", gpus_assigned=("0",), gpus_listed=lines) for i in (1, 2)]
    expected = Expected(num_executors=2, num_gpus=1)
    check = only(diagnose(expected, CLUSTER, result_of("driver", 0), executors))
    assert str(check) == "executor 1 on host h, executor 2 on host h: all of them were assigned GPU-0"
    # Where YARN isolates them, each container sees its own one, as number 0.
    isolated = [
        dataclasses.replace(executor, gpus_listed=(line.replace("GPU 1:", "GPU 0:"),))
        for executor, line in zip(executors, lines, strict=True)
    ]
    assert not not_ok(diagnose(expected, CLUSTER, result_of("driver", 0), isolated))


def test_parameter_servers_need_no_gpu() -> None:
    expected = Expected(num_executors=2, num_gpus=1, num_gpu_nodes=1)
    assert not not_ok(gpu_checks(expected, (("0",), GPU), (None, ())))


def test_gpus_of_local_spark_are_those_that_are_there() -> None:
    cluster = Cluster(master="local[2]", spark_version="4.3.0", num_slots=2, in_driver=True, num_registered=1)
    expected = Expected(num_executors=2, num_gpus=1, num_gpu_nodes=2)
    checks = diagnose(expected, cluster, result_of("driver", 0), [result_of("executor", 0, gpus_listed=GPU)])
    assert only(checks).fact == "1 visible, 2 needed"


def test_tensorflow_that_sees_no_gpu() -> None:
    expected = Expected(num_executors=2, num_gpus=1, num_gpu_nodes=1)
    found: dict[str, Any] = {"gpus_assigned": ("0",), "gpus_listed": GPU}
    check = only(look(expected, **found, tensorflow_gpus=()))
    assert (check.name, check.fact, check.exit_code) == ("tensorflow", "TensorFlow sees 0 GPUs, 1 wanted", 69)
    assert not not_ok(look(expected, **found, tensorflow_gpus=("H100",), driver={"tensorflow_gpus": ()}))


# --- shared hosts ----------------------------------------------------------------------------------------------------


def test_executors_of_one_host_share_its_disk_and_its_ports() -> None:
    expected = Expected(num_executors=2, port_range=(40000, 40004), num_driver_nodes=1)
    executors = [result_of("executor", i, host="h", num_free_ports=4, disk=Disk("/tmp", 1, GIB + 1)) for i in (1, 2)]
    driver = result_of("driver", 0, host="h", num_free_ports=5)
    cluster = dataclasses.replace(CLUSTER, num_held_ports=1)
    disk, ports = not_ok(diagnose(expected, cluster, driver, executors))
    assert disk.fact == "1.00 GiB free in /tmp, 2.00 GiB needed for 2 node(s)"
    assert ports.fact == "5 free of 40000-40004, 6 needed"  # 2 nodes, 3 of the driver, 1 parameter server beside it


def test_disks_of_one_host_are_told_apart() -> None:
    executors = [result_of("executor", i, host="h", disk=Disk(f"/d{i}", i, GIB + 1)) for i in (1, 2)]
    assert not not_ok(diagnose(EXPECTED, CLUSTER, result_of("driver", 0), executors))


# --- YARN's limits ---------------------------------------------------------------------------------------------------


def test_containers_that_yarn_never_gives() -> None:
    cluster = dataclasses.replace(CLUSTER, yarn_limit_mb=1400)
    executor, driver = not_ok(look(cluster=cluster))
    assert executor.exit_code == 78
    assert "executor container of 2432 MiB (2048 and 384 overhead), and YARN gives 1400 MiB at most" in executor.fact
    assert "driver container of 1408 MiB" in driver.fact


# --- tokens ----------------------------------------------------------------------------------------------------------


def token(hours: float, renewer: str = "yarn") -> Token:
    return Token(
        kind="HDFS_DELEGATION_TOKEN", service="h:8020", renewer=renewer, issued_s=NOW_S, max_date_s=NOW_S + hours * 3600
    )


def test_a_token_that_ends_before_the_job() -> None:
    tokens = (token(10), token(-1), Token(kind="YARN_AM_RM_TOKEN", service=""))
    short, ended = not_ok(look(driver={"tokens": tokens}, tokens=tokens))
    assert short.fact == "HDFS_DELEGATION_TOKEN for h:8020 lives for 10.0 hours more, and the job runs for 24"
    assert short.where == ("driver on host h0", "executor 2 on host h2")
    assert "ended 1.0 hours ago" in ended.fact
    assert short.exit_code == ended.exit_code == 78
    assert not not_ok(look(Expected(num_executors=2, expected_hours=9), tokens=(token(10),)))


def test_a_token_that_nobody_renews() -> None:
    expected = Expected(num_executors=2, expected_hours=48)
    assert only(look(expected, tokens=(token(100, renewer=""),))).state == WARNING
    assert not not_ok(look(expected, tokens=(token(100),)))


# --- travelling ------------------------------------------------------------------------------------------------------


def test_a_probe_result_survives_json_and_another_version() -> None:
    original = result_of("executor", 1, tokens=(token(1),), gpus_assigned=("0",), tensorflow_gpus=())
    values = json.loads(json.dumps(original.to_dict()))
    assert from_dict(values) == original
    values["of_a_later_version"] = 1
    values["trial"]["of_a_later_version"] = 1
    del values["num_free_ports"]
    assert from_dict(values) == dataclasses.replace(original, num_free_ports=0)
