"""Spark jobs that probe each executor once. All of it runs on the driver, except `probe_here`."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pyspark
from py4j.protocol import Py4JError
from pyspark import Accumulator, AccumulatorParam, SparkContext, TaskContext

from tfos_job.doctor import probe
from tfos_job.doctor.diagnosis import Check, failed
from tfos_job.doctor.probe import EXECUTOR, ProbeRequest, ProbeResult
from tfos_job.errors import ResourceError, SettingsError
from tfos_job.host.limits import within

_HOLD_S = 1.0  # each task holds its slot for this time, so that the other tasks go to other executors
_ROUNDS = 3
_JOB_S = 30.0  # to start the tasks and Python, beyond the time limits within a task
_DEEP_S = 180.0
_POLL_S = 0.1
_CANCEL_S = 10.0


class _ResultsParam(AccumulatorParam[list[Any]]):
    """Probe results as they arrive: unlike a job's result, they do not depend on other tasks that fail or hang."""

    def zero(self, value: list[Any]) -> list[Any]:
        return []

    def addInPlace(self, value1: list[Any], value2: list[Any]) -> list[Any]:  # noqa: N802 - Spark's name
        value1 += value2
        return value1


def probe_here(
    request: ProbeRequest, hold_s: float, known: frozenset[str], results: Accumulator[list[Any]], _: Iterable[int]
) -> None:
    """Probes the executor that this task runs on, and holds its slot for `hold_s`."""
    began_s = time.monotonic()
    jvm = probe.own_executor()
    if jvm not in known:
        context = TaskContext.get()
        gpus = context.resources().get("gpu") if context else None
        addresses = None if gpus is None else gpus.addresses
        result = probe.run(request, EXECUTOR, pyspark_version=pyspark.__version__, gpus_assigned=addresses)
        results.add([result.to_dict()])
    time.sleep(max(0.0, hold_s - (time.monotonic() - began_s)))


class ExecutorProbe:
    """Spark jobs that probe each executor once. They start at once; `collect` waits for them."""

    def __init__(self, sc: SparkContext, request: ProbeRequest, num_executors: int) -> None:
        self._sc = sc
        self._request = request
        self._num_executors = num_executors
        self._group = f"doctor-{request.token}"
        self._results = sc.accumulator([], _ResultsParam())
        self._deadline_s = time.monotonic() + _JOB_S + request.storage_timeout_s + (_DEEP_S if request.deep else 0.0)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=self._group, daemon=True)
        self.problems: list[Check] = []
        self._thread.start()

    def _run(self) -> None:
        try:
            # The group belongs to the jobs of this thread, so it is set here.
            self._sc.setJobGroup(self._group, f"a probe of {self._num_executors} executors", interruptOnCancel=True)
            for _ in range(_ROUNDS):
                known = frozenset(result.key for result in self._collected())
                if len(known) >= self._num_executors or time.monotonic() > self._deadline_s:
                    return
                hold_s = _HOLD_S if self._num_executors > 1 else 0.0
                probe_each = functools.partial(probe_here, self._request, hold_s, known, self._results)
                self._sc.parallelize(range(self._num_executors), self._num_executors).foreachPartition(probe_each)
        except Exception as e:  # noqa: BLE001 - any exception of Spark or py4j is a finding
            self._error = e

    def collect(self, on_wait: Callable[[], None]) -> tuple[ProbeResult, ...]:
        """Waits for the jobs, up to the time limit, and returns the results; failures are in `problems`."""
        while self._thread.is_alive() and time.monotonic() < self._deadline_s:
            on_wait()
            self._thread.join(_POLL_S)
        if self._error is not None:
            self.problems.append(_task_problem(self._error))
        return self._collected()

    def close(self) -> None:
        """Cancels the jobs, those that run and those to come."""
        if self._thread.is_alive():
            with contextlib.suppress(Py4JError, OSError):  # TimeoutError is one
                within(_CANCEL_S, self._cancel, "cancel")

    def _cancel(self) -> None:
        # Also the job that the thread is about to start, which nobody would cancel otherwise.
        self._sc._jsc.sc().cancelJobGroupAndFutureJobs(self._group)

    def _collected(self) -> tuple[ProbeResult, ...]:
        results = {result.key: result for result in map(probe.from_dict, list(self._results.value))}
        return tuple(sorted(results.values(), key=lambda result: (len(result.executor_id), result.executor_id)))


# The last line of a Python traceback; Java's frames and causes begin differently.
_RAISED = re.compile(r"(?!org\.|java\.|py4j\.)(?:\w+\.)*(\w*(?:Error|Exception): .+)")
_AT_EXECUTOR = re.compile(r"\((\S+) executor (\S+)\)")


def _task_problem(error: Exception) -> Check:
    """Explains why tasks fail before the probe: no Python, another version, or one that lacks this package."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [match.group(1) for line in lines if (match := _RAISED.fullmatch(line))]
    at = _AT_EXECUTOR.search(str(error))
    fact = raised[-1] if raised else next((line for line in lines if "Exception" in line), type(error).__name__)
    return failed(
        "tasks",
        SettingsError if raised or "Cannot run program" in str(error) else ResourceError,
        f"a task cannot be run: {fact}",
        where=[f"executor {at.group(2)} on host {at.group(1)}"] if at else [],
        next_step="Ship this package and its Python with the job (PYSPARK_PYTHON, --archives), the same everywhere",
    )
