"""A Spark task that sums pixels: what it is to do, and how it has a process do it (`pixel_sums`). On an executor."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from tfos_job.data.statistics import Subject
from tfos_job.errors import JobError, NodeDiedError, exit_code_class

_LAST_BYTES = 2000


@dataclass(frozen=True, kw_only=True)
class SumShard:
    """A shard, and which of the split's records its first one is."""

    path: str
    size_bytes: int
    sha256: str
    num_records: int
    first_index: int


@dataclass(frozen=True, kw_only=True)
class SumTask:
    """Some shards of a split.

    Attributes:
      num_records: of the whole split.
      limit: records of the whole split that count (`statistics.is_sampled`).
      output: the .npz to write.
    """

    subject: Subject
    shards: tuple[SumShard, ...]
    num_records: int
    limit: int
    output: str

    @staticmethod
    def from_json(value: dict[str, Any]) -> SumTask:
        """The inverse of `dataclasses.asdict`."""
        shards = tuple(SumShard(**shard) for shard in value["shards"])
        return SumTask(**value | {"subject": Subject(**value["subject"]), "shards": shards})


@dataclass(frozen=True)
class Answer:
    """How it went: the parts of a `JobError`, or an exit code of 0."""

    exit_code: int = 0
    fact: str = ""
    place: str = ""
    next_step: str = ""


def sum_pixels(task: SumTask) -> str:
    """Does a task; returns its output's path.

    Raises:
      JobError: what the process met.
      NodeDiedError: it was killed.
    """
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    command = [sys.executable, "-m", "tfos_job.data.pixel_sums"]
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write((json.dumps(dataclasses.asdict(task)) + "\n").encode())
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                process.wait()
        finally:
            process.kill()  # it has said all that it has to say, or nobody listens any more
        stderr.seek(0)
        said = stderr.read()
    if not line:
        raise _died(process.returncode, said)
    answer = Answer(**json.loads(line))
    if answer.exit_code:
        raise exit_code_class(answer.exit_code)(answer.fact, place=answer.place, next_step=answer.next_step)
    return task.output


def _died(code: int, said: bytes) -> JobError:
    if code < 0:
        return NodeDiedError(
            f"the process that sums pixels was killed by {signal.Signals(-code).name}",
            next_step="If nobody killed it, it ran out of memory: give executors more, or a smaller --image_size",
        )
    tail = said[-_LAST_BYTES:].decode(errors="replace").strip()
    return JobError(f"the process that sums pixels ended with {code}: {tail}", next_step="This is a bug")
