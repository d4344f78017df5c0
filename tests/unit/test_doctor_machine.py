"""What `doctor` looks with: on real sockets, files and processes; a shell script stands for nvidia-smi."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from tests.unit.waits import PATIENCE_S
from tfos_job import storage
from tfos_job.doctor import clock, host_memory, machine, trial
from tfos_job.doctor.host_memory import Container
from tfos_job.errors import MissingInputError, ResourceError, SettingsError

# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "memory_mb", "overhead_mb"),
    [
        ({}, 1024, 384),
        ({"spark.executor.memory": "8g"}, 8192, 819),
        ({"spark.executor.memory": "8g", "spark.executor.memoryOverhead": "2g"}, 8192, 2048),
        ({"spark.executor.memory": "2048", "spark.executor.memoryOverhead": "500"}, 2048, 500),
        ({"spark.executor.memory": "10g", "spark.executor.memoryOverheadFactor": "0.4"}, 10240, 4096),
        ({"spark.executor.memory": "1g", "spark.executor.pyspark.memory": "1t"}, 1024, 384 + (1 << 20)),
        ({"spark.memory.offHeap.enabled": "true", "spark.memory.offHeap.size": "1073741824"}, 1024, 384 + 1024),
        ({"spark.memory.offHeap.enabled": "false", "spark.memory.offHeap.size": "1g"}, 1024, 384),
        ({"spark.executor.memory": "1048576k"}, 1024, 384),
    ],
)
def test_the_container_of_an_executor(settings: dict[str, str], memory_mb: int, overhead_mb: int) -> None:
    assert host_memory.executor_container(settings) == Container(memory_mb=memory_mb, overhead_mb=overhead_mb)


def test_the_container_of_the_driver_depends_on_where_it_runs() -> None:
    settings = {"spark.driver.memory": "4g", "spark.yarn.am.memory": "600m"}
    assert host_memory.driver_container(settings) == Container(memory_mb=600, overhead_mb=384)
    settings["spark.submit.deployMode"] = "cluster"
    assert host_memory.driver_container(settings) == Container(memory_mb=4096, overhead_mb=409)


@pytest.mark.parametrize("key", ["spark.executor.memory", "spark.executor.memoryOverheadFactor"])
def test_a_size_that_is_none(key: str) -> None:
    with pytest.raises(SettingsError, match=f"{key}: 'lots' is not a"):
        host_memory.executor_container({key: "lots"})


def yarn_site(folder: Path, value: str) -> str:
    name = "yarn.scheduler.maximum-allocation-mb"
    properties = f"<property><name>{name}</name><value>{value}</value></property>"
    (folder / "yarn-site.xml").write_text(f"<configuration>{properties}</configuration>")
    return str(folder)


def test_the_limit_of_yarn(tmp_path: Path) -> None:
    assert host_memory.yarn_limit_mb(None) is None
    assert host_memory.yarn_limit_mb(str(tmp_path)) is None
    assert host_memory.yarn_limit_mb(yarn_site(tmp_path, " 15000\n")) == 15000
    assert host_memory.yarn_limit_mb(yarn_site(tmp_path, "${memory.mb}")) is None
    for bad in ("much", "<"):
        with pytest.raises(SettingsError, match=r"yarn-site\.xml: cannot be understood"):
            host_memory.yarn_limit_mb(yarn_site(tmp_path, bad))


# --- ports and clocks ------------------------------------------------------------------------------------------------


def test_ports_in_use_are_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert machine.count_free_ports((port, port)) == 0
    assert machine.count_free_ports((port, port)) == 1
    assert machine.count_free_ports(None) == 1


def assert_none(address: clock.Address) -> None:
    """No offset is found, but for half of a round trip that it took to look."""
    began_s = time.monotonic()
    assert abs(clock.offset_s(address)) <= time.monotonic() - began_s


def test_the_clock_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    with clock.serve("127.0.0.1", None) as address:
        monkeypatch.setattr(clock, "_TIMEOUT_S", PATIENCE_S)
        with socket.create_connection(address):  # somebody who only connects keeps nobody waiting
            assert_none(address)
        behind_s = clock.time.time() - 100
        monkeypatch.setattr(clock.time, "time", lambda: behind_s)
        assert_none(address)  # both ends are of this process, so both are 100 s behind
    with pytest.raises(OSError):  # noqa: PT011  # refused, or reset
        clock.offset_s(address)


def test_a_clock_in_a_range_without_a_free_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"no port of {port}-{port}"), clock.serve("127.0.0.1", (port, port)):
            pass


# --- GPUs and Java ---------------------------------------------------------------------------------------------------


def command(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_gpus_as_nvidia_smi_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.list_gpus() == ((), "there is no nvidia-smi on PATH")
    command(tmp_path, "nvidia-smi", "echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'; echo '  MIG 1g: 0'")
    assert machine.list_gpus() == (("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)",), "")
    command(tmp_path, "nvidia-smi", 'for i in 0 1 2; do echo "GPU $i: H100 (UUID: GPU-a$i)"; done')
    for allowed, found in (("2", ["2"]), ("GPU-a1,0", ["0", "1"]), ("-1,0", []), ("7", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
        listed, error = machine.list_gpus()
        assert [line[4] for line in listed] == found
        assert error == ("" if found else f"CUDA_VISIBLE_DEVICES={allowed} allows none of 3")
    command(tmp_path, "nvidia-smi", "echo no driver >&2; exit 9")
    assert machine.list_gpus() == ((), "nvidia-smi -L ends with 9: no driver")


def test_the_version_of_java(tmp_path: Path) -> None:
    command(tmp_path / "bin", "java", "echo 'openjdk version \"21.0.3\" 2024-04-16' >&2")
    java = tmp_path / "bin/java"
    assert machine.java_version(java) == "21.0.3"
    (tmp_path / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="17.0.15"\n')
    assert machine.java_version(java) == "17.0.15"
    assert machine.java_version(tmp_path / "none/bin/java") is None


# --- the file system -------------------------------------------------------------------------------------------------


def test_a_trial_leaves_nothing(tmp_path: Path) -> None:
    place = trial.existing_folder(str(tmp_path / "not/there/yet"))
    assert place == str(tmp_path)
    result = trial.attempt(place, "t", "driver", PATIENCE_S)
    assert (result.error, result.exit_code) == ("", 0)
    assert result.clock_offset_s is not None
    assert abs(result.clock_offset_s) < 2
    trial.sweep(place, "t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("path", "found"), [("/no/such", "/"), ("file:///no/such", "file:///"), ("/", "/")])
def test_the_root_exists(path: str, found: str) -> None:
    assert trial.existing_folder(path) == found


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(MissingInputError, match="a file, not a folder"):
        trial.existing_folder(str(tmp_path / "run"))
    with pytest.raises(MissingInputError, match="a file, not a folder"):
        trial.existing_folder(str(tmp_path / "run/a/b"))


def test_a_disk_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Opening a pipe for reading waits for a writer, as a network disk may wait for its server.
    (tmp_path / "_doctor-t").mkdir()
    pipe = tmp_path / "_doctor-t/name"
    os.mkfifo(pipe)
    monkeypatch.setattr(storage, "rename", lambda source, target: None)
    monkeypatch.setattr(trial, "_CLEANUP_LIMIT_S", 0.0)
    result = trial.attempt(str(tmp_path), "t", "name", 0.3)
    assert (result.error, result.exit_code) == (f"{tmp_path}: no answer for 0.3 s", 74)
    os.close(os.open(pipe, os.O_WRONLY))  # lets the thread go


def test_tensorflow_is_asked_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('libcudart.so.12 is not there')")
    monkeypatch.syspath_prepend(str(tmp_path))
    gpus, error = machine.tensorflow_gpus(())
    assert gpus == ()
    assert error == "importing TensorFlow ends with ImportError: libcudart.so.12 is not there"
