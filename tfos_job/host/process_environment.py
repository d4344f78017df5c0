"""The environment of a job's processes, derived from the user's. `settle…` are pure.

A login shell on an edge node sets variables for all programs, and some of them break a job. Those are removed or
replaced, in this module alone, and each change has a reason in words (`-v` shows it). All other variables stay: a user
who sets TF_FORCE_GPU_ALLOW_GROWTH, OMP_NUM_THREADS, CUDA_VISIBLE_DEVICES, XLA_FLAGS or LD_LIBRARY_PATH intends it.

Determined with TensorFlow 2.21, Keras 3.15 and Spark 4.3.
"""

from __future__ import annotations

import contextlib
import json
import locale
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_KERAS_DEFAULTS = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}
_ASCII = ("ascii", "us-ascii", "ansi_x3.4-1968", "646")  # its names on various systems
_UTF_8_LOCALE = "C.UTF-8"

_TAKEN_OUT = {
    "TF_CONFIG": "a cluster of a job is described by the job",
    "TF_USE_LEGACY_KERAS": "networks are Keras 3's, which tf.keras must be as well",
    "KERAS_NNX_ENABLED": "it wants JAX",
    "PYTHONINSPECT": "a process of a job would not end",
}
_OF_SPARK_AND_PYTHON = ("SPARK_", "PYSPARK_", "PYTHON")
_OF_THE_SUBMITTING_HOST = ("SPARK_LOCAL_IP", "SPARK_LOCAL_DIRS", "SPARK_SUBMIT_OPTS", "SPARK_HOME")
_GRPC_POLL_STRATEGIES = {"all", "epoll1", "none", "poll"}
_GRPC_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # gRPC takes the first that is set; empty means none


@dataclass(frozen=True)
class VariableChange:
    """A variable that a job does not get as the user has set it. `after` is None if it is removed."""

    name: str
    before: str | None
    after: str | None
    reason: str

    def __str__(self) -> str:
        found = self.name if self.before is None else f"{self.name}={self.before}"
        return f"{found} is {'left out' if self.after is None else f'{self.after!r} for the job'}: {self.reason}"


def settle(
    environ: Mapping[str, str], *, encoding: str = "utf-8", keras: Mapping[str, Any] | None = None
) -> list[VariableChange]:
    """Returns the changes to `environ` for all processes of a job; empty if they have been made.

    Args:
      environ: the user's environment.
      encoding: of the locale.
      keras: content of Keras's configuration file; None if there is none.
    """
    changes = [
        VariableChange(name, environ[name], None, reason) for name, reason in _TAKEN_OUT.items() if name in environ
    ]
    changes += _settle_keras(environ, keras or {})
    changes += _settle_grpc(environ)
    changes += _settle_python(environ)
    if environ.get("MPLBACKEND", "agg") != "agg":
        changes.append(VariableChange("MPLBACKEND", environ["MPLBACKEND"], "agg", "pictures are files"))
    if encoding.lower() in _ASCII and environ.get("LC_ALL") != _UTF_8_LOCALE:
        changes.append(VariableChange("LC_ALL", environ.get("LC_ALL"), _UTF_8_LOCALE, "Java could not open 汉字.gnt"))
    return changes


def _settle_keras(environ: Mapping[str, str], keras: Mapping[str, Any]) -> Iterator[VariableChange]:
    backend = environ.get("KERAS_BACKEND", keras.get("backend", "tensorflow"))
    if backend != "tensorflow":
        yield VariableChange(
            "KERAS_BACKEND", environ.get("KERAS_BACKEND"), "tensorflow", "networks are trained by TensorFlow"
        )
    wrong = [f"{name} {keras[name]!r}" for name, value in _KERAS_DEFAULTS.items() if keras.get(name, value) != value]
    if wrong:
        # A path that can have no file in it: Keras uses its defaults and writes no file.
        reason = f"Keras's keras.json has {', '.join(wrong)}"
        yield VariableChange("KERAS_HOME", environ.get("KERAS_HOME"), os.devnull, reason)


def _settle_grpc(environ: Mapping[str, str]) -> Iterator[VariableChange]:
    strategies = environ.get("GRPC_POLL_STRATEGY", "poll")
    if not set(strategies.split(",")) <= _GRPC_POLL_STRATEGIES:
        yield VariableChange(
            "GRPC_POLL_STRATEGY", strategies, None, "TensorFlow's gRPC has it not, and would end the process"
        )
    proxy = next((name for name in _GRPC_PROXIES if name in environ), None)
    if proxy and environ[proxy]:
        reason = f"what the nodes of a cluster say to each other must not go through {proxy}"
        yield VariableChange("grpc_proxy", environ.get("grpc_proxy"), "", reason)


def _settle_python(environ: Mapping[str, str]) -> Iterator[VariableChange]:
    found = environ.get("PYTHONWARNINGS", "").split(",")
    kept = [entry for entry in found if not is_error(entry)]
    if kept != found:
        yield VariableChange(
            "PYTHONWARNINGS", ",".join(found), ",".join(kept) or None, "libraries warn where nothing is wrong"
        )


def is_error(entry: str) -> bool:
    """True if an entry of PYTHONWARNINGS turns a warning into an error: `error::DeprecationWarning`, or shorter."""
    action = entry.strip().partition(":")[0]
    return bool(action) and "error".startswith(action)


def settle_local_spark(environ: Mapping[str, str], *, python: str, path: str) -> list[VariableChange]:
    """Returns the changes, in addition to those of `settle`, for a Spark whose processes all run on this host.

    Args:
      environ: the user's environment.
      python: path of this interpreter.
      path: import path of this process, for PYTHONPATH.
    """
    wanted: dict[str, tuple[str | None, str]] = {
        "SPARK_HOME": (None, "Spark on this host is the one that pyspark brings along"),
        "SPARK_LOCAL_IP": ("127.0.0.1", "no name of this host needs to resolve"),
        "PYSPARK_PYTHON": (python, "Spark's workers on this host run the Python that their driver runs in"),
        "PYSPARK_DRIVER_PYTHON": (python, "Spark's workers on this host run the Python that their driver runs in"),
        "PYTHONPATH": (path, "Spark's workers on this host find the modules that their driver finds"),
        "PYTHONSAFEPATH": ("1", "a queue.py in the working directory is none of Python's own"),
    }
    return [
        VariableChange(name, environ.get(name), value, reason)
        for name, (value, reason) in wanted.items()
        if environ.get(name) != value
    ]


def settle_submission(environ: Mapping[str, str]) -> list[VariableChange]:
    """Returns the changes, in addition to those of `settle`, for spark-submit: the job brings its Spark and Python."""
    return [
        VariableChange(name, value, None, "a submitted job brings its own Spark and Python along")
        for name, value in environ.items()
        if name.startswith(_OF_SPARK_AND_PYTHON) and name not in _OF_THE_SUBMITTING_HOST
    ]


def apply(environ: dict[str, str] | os._Environ[str], changes: list[VariableChange]) -> None:
    """Makes the changes in an environment."""
    for change in changes:
        if change.after is None:
            environ.pop(change.name, None)
        else:
            environ[change.name] = change.after


@contextlib.contextmanager
def applied(environ: dict[str, str] | os._Environ[str], changes: list[VariableChange]) -> Iterator[None]:
    """Makes the changes for the length of a `with` block."""
    apply(environ, changes)
    try:
        yield
    finally:
        apply(environ, [VariableChange(it.name, it.after, it.before, it.reason) for it in changes])


def needed() -> list[VariableChange]:
    """Returns the changes to this process's environment."""
    return settle(os.environ, encoding=locale.getencoding(), keras=_keras_configuration())


def settle_process() -> list[VariableChange]:
    """Changes this process's environment, before a heavy import; returns the changes."""
    changes = needed()
    apply(os.environ, changes)
    if any(change.name == "PYTHONWARNINGS" for change in changes):
        warnings.filters[:] = [entry for entry in warnings.filters if entry[0] != "error"]  # type: ignore[index]
    return changes


def settled() -> dict[str, str]:
    """Returns this process's environment with the changes made."""
    found = dict(os.environ)
    apply(found, needed())
    return found


def _keras_configuration() -> Mapping[str, Any]:
    """Returns the configuration that Keras reads at its import; an unreadable file counts as not the defaults."""
    home = os.environ.get("KERAS_HOME")
    if home is None:
        user = os.path.expanduser("~")
        home = os.path.join(user if os.access(user, os.W_OK) else "/tmp", ".keras")
    try:
        with open(os.path.expanduser(os.path.join(home, "keras.json")), encoding="utf-8", errors="replace") as file:
            found = json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # Keras ignores a file that is not JSON
        return {}
    except OSError as error:
        return {"floatx": str(error)}
    return found if isinstance(found, dict) else {"floatx": found}
