"""Facts about the host of this process: software, Spark's JVM, GPUs, memory, disk, ports. Reads Linux's files."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tfos_job
from tfos_job.errors import JobError
from tfos_job.host import calls, gpus
from tfos_job.host.child import end

_PACKAGES = ("keras", "tensorflowonspark", "numpy", "fsspec", "hdfs-native", "pillow")
# Names under which TensorFlow is installed.
_TENSORFLOWS = ("tensorflow", "tensorflow-cpu")
_COMMAND_TIMEOUT_S = 15
_TENSORFLOW_TIMEOUT_S = 180
_MAX_ANCESTORS = 6


# --- software --------------------------------------------------------------------------------------------------------


def versions() -> dict[str, str | None]:
    """Returns versions by package, without importing them; None if a package is not installed.

    `tfos_job` may be a zip without metadata.
    """
    found = {name: _installed(name) for name in _PACKAGES}
    tensorflow = next(filter(None, map(_installed, _TENSORFLOWS)), None)
    return {"python": platform.python_version(), "tfos_job": tfos_job.__version__, "tensorflow": tensorflow, **found}


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Jvm:
    """The Java process that started this one."""

    pid: int
    executor_id: str
    version: str | None


def parent_jvm() -> Jvm | None:
    """Returns Spark's JVM among the ancestors of this process; None if a user started it, as with `tfos-job`."""
    pid = os.getppid()
    for _ in range(_MAX_ANCESTORS):
        process = Path("/proc", str(pid))
        try:
            executable = Path(os.readlink(process / "exe"))
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            stat = (process / "stat").read_text()
        except OSError:
            return None  # of another user, or ended
        if executable.name == "java":
            at = command.index("--executor-id") + 1 if "--executor-id" in command else len(command)
            return Jvm(pid, "".join(command[at : at + 1]), java_version(executable))
        pid = int(stat.rpartition(")")[2].split()[1])
    return None


def java_version(executable: Path) -> str | None:
    """Returns a version such as `17.0.15`: from the file `release` of Java's home, else by starting Java."""
    try:
        release = (executable.parent.parent / "release").read_text(errors="replace")
    except OSError:
        release = ""
    match = re.search(r'^JAVA_VERSION="([^"]+)"', release, re.MULTILINE)
    if not match:
        try:
            said = _output([str(executable), "-version"])
        except (OSError, subprocess.SubprocessError):
            return None
        match = re.search(r'version "([^"]+)"', said)
    return match.group(1) if match else None


# --- GPUs ------------------------------------------------------------------------------------------------------------


def list_gpus() -> tuple[tuple[str, ...], str]:
    """Returns a line of `nvidia-smi -L` for each GPU that this process may use, and the reason if there is none."""
    if not shutil.which("nvidia-smi"):
        return (), "there is no nvidia-smi on PATH"
    try:
        lines = _output(["nvidia-smi", "-L"]).splitlines()
    except subprocess.CalledProcessError as e:
        said = next(iter((e.output or "").strip().splitlines()), "")
        return (), f"nvidia-smi -L ends with {e.returncode}: {said}"
    except (OSError, subprocess.SubprocessError) as e:
        return (), f"nvidia-smi -L: {e}"
    listed = tuple(line.strip() for line in lines if line.startswith("GPU "))
    own = gpus.allowed(os.environ)
    if own is None or not listed:
        return listed, "" if listed else "nvidia-smi lists none"
    found = tuple(line for line in listed if any(_is_about(line, gpu) for gpu in own))
    return found, "" if found else f"{gpus.VARIABLE}={os.environ[gpus.VARIABLE]} allows none of {len(listed)}"


def _is_about(line: str, gpu: str) -> bool:
    """True if a line of `nvidia-smi -L` describes this GPU, by number or prefix of a UUID; of MIG, any may be."""
    return line.startswith(f"GPU {gpu}:") or f"UUID: {gpu}" in line or gpu.startswith("MIG-")


def tensorflow_gpus(visible: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Returns the GPUs that TensorFlow sees, by a process of its own, and the error if that failed.

    Args:
      visible: addresses for CUDA_VISIBLE_DEVICES.
    """
    try:
        names = calls.call(
            "tfos_job.training.devices",
            {},
            name="TensorFlow's process",
            if_killed="",
            visible_gpus=",".join(visible),
            limit_s=_TENSORFLOW_TIMEOUT_S,
        )
    except OSError as e:
        return (), f"TensorFlow cannot be started: {e}"
    except JobError as e:
        return (), e.fact.strip().splitlines()[-1]
    return tuple(names), ""


def _output(command: Sequence[str]) -> str:
    """Returns both output streams: `java -version` writes to stderr."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = process.wait(_COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            end(process, command[0])  # has a time limit: a hanging GPU driver may block the end of the process
            raise
        output.seek(0)
        said = output.read().decode(errors="replace")
    if code:
        raise subprocess.CalledProcessError(code, command, said)
    return said


# --- disk, ports -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """The disk for a job's local files. `device` distinguishes the disks of a host."""

    path: str
    device: int
    free_bytes: int


def scratch_disk() -> Disk:
    """Returns the disk of the YARN container's folder, which YARN removes; elsewhere that of temporary files."""
    path = os.getcwd() if os.environ.get("CONTAINER_ID") else tempfile.gettempdir()
    return Disk(path, os.stat(path).st_dev, shutil.disk_usage(path).free)


def count_free_ports(port_range: tuple[int, int] | None) -> int:
    """Counts the ports of a range that can be bound; without a range, returns 1 if the system assigns any port.

    The ports are bound without listening, so that two processes can count at the same time.
    """
    low, high = port_range or (0, 0)
    free = 0
    for port in range(low, high + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            free += 1
    return free
