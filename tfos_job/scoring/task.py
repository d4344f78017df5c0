"""The tasks of `infer` and `evaluate` on executors: a process with TensorFlow does the work, and stays for the next.

A Python worker of Spark runs one task after the other, and carries no TensorFlow (`host/calls.py` says why). The
process beside it loads TensorFlow and the model once (`host/service.py`). It sees the GPUs that Spark has assigned to
the task; where another task of the same worker has been assigned others, it is replaced.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.host.service import Service
from tfos_job.run.predictions import JudgedShard
from tfos_job.scoring.inputs import InputFile
from tfos_job.scoring.plan import Model
from tfos_job.scoring.rows import Counts

_MODULE = "tfos_job.inference.scoring_process"
_service: Service | None = None  # of this Python worker, whose tasks run one after the other


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What a task may use of its host.

    Attributes:
      gpus: addresses that Spark has assigned; empty: none.
      num_threads: of TensorFlow; 0: as many as there are cores.
    """

    gpus: tuple[str, ...] = ()
    num_threads: int = 0


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """The order to answer about the files of one partition.

    Attributes:
      number: of the partition.
      files: in order.
      part: path of the file to write.
      record: path of the document about it, which is written afterwards.
      plan: path of the plan.
      plan_id: of the plan: nothing is published under another one.
    """

    number: int
    files: tuple[InputFile, ...]
    model: Model
    part: str
    record: str
    plan: str
    plan_id: str
    output_format: str
    top_k: int
    raw_image: bool
    batch_size: int

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"model": vars(self.model)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> PartTask:
        """The inverse of `to_json`."""
        files = tuple(InputFile(*file) for file in value["files"])
        return PartTask(**value | {"files": files, "model": Model(**value["model"])})


@dataclass(frozen=True, kw_only=True)
class JudgeTask:
    """The order to judge one shard of a split for `evaluate`.

    Attributes:
      path, size_bytes, sha256: of the shard, by its manifest.
      ks: of the top-k counts.
    """

    model: Model
    path: str
    size_bytes: int
    sha256: str
    batch_size: int
    ks: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"model": vars(self.model)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> JudgeTask:
        """The inverse of `to_json`."""
        return JudgeTask(**value | {"model": Model(**value["model"]), "ks": tuple(value["ks"])})


@dataclass(frozen=True, kw_only=True)
class PicturesTask:
    """The order to answer about pictures: bytes of files, paths, or None for nothing."""

    model: Model
    pictures: tuple[bytes | str | None, ...]
    top_k: int
    raw_image: bool

    def to_json(self) -> dict[str, Any]:
        pictures = [
            {"b64": base64.b64encode(picture).decode("ascii")}
            if isinstance(picture, bytes | bytearray | memoryview)
            else picture
            for picture in self.pictures
        ]
        return vars(self) | {"model": vars(self.model), "pictures": pictures}

    @staticmethod
    def from_json(value: dict[str, Any]) -> PicturesTask:
        """The inverse of `to_json`."""
        pictures = (
            base64.b64decode(picture["b64"]) if isinstance(picture, dict) else picture for picture in value["pictures"]
        )
        return PicturesTask(**value | {"model": Model(**value["model"]), "pictures": tuple(pictures)})


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """A part that is published.

    Attributes:
      size_bytes: of its file.
      sha256: of its file.
    """

    number: int
    size_bytes: int
    sha256: str
    counts: Counts

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> PartRecord:
        return PartRecord(**value | {"counts": Counts(**value["counts"])})


def answer_part(task: PartTask, slot: Slot) -> PartRecord:
    """Answers about the files of a partition, and publishes its part.

    Raises:
      JobError: storage fails, or the model cannot be loaded.
      NodeDiedError: the process was killed, or hung.
      BusyError: the folder has become that of another job.
    """
    request = {"do": "part", "task": task.to_json()}
    return PartRecord.from_json(_service_of(slot).call(request))


def judge_shard(task: JudgeTask, slot: Slot) -> JudgedShard:
    """Judges a shard.

    Raises:
      BadDataError: a damaged record; the error names its file and byte.
      JobError: as `answer_part`.
    """
    return JudgedShard.from_json(_service_of(slot).call({"do": "judge", "task": task.to_json()}))


def answer_pictures(task: PicturesTask, slot: Slot) -> list[list[Any]]:
    """Answers about pictures: for each one its classes, class ids, probabilities, `doubtful` and `error`, as in `Row`.

    Raises:
      JobError: as `answer_part`.
    """
    found: list[list[Any]] = _service_of(slot).call({"do": "pictures", "task": task.to_json()})
    return found


def _service_of(slot: Slot) -> Service:
    """The process of this Python worker, with the GPUs of this task."""
    global _service
    gpus = ",".join(slot.gpus)
    if _service is not None and _service.visible_gpus != gpus:
        _service.close()
        _service = None
    if _service is None:
        _service = Service(
            _MODULE,
            name="the process that predicts",
            if_killed="If nobody killed it, it ran out of memory: give executors more (spark.executor.memoryOverhead), "
            "or a smaller --batch_size; then run again",
            visible_gpus=gpus,
            variables=_variables(slot),
        )
    return _service


def _variables(slot: Slot) -> dict[str, str]:
    """Variables of TensorFlow. An idle process of another worker may still have memory of the same GPU."""
    names: Sequence[str] = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS") if slot.num_threads else ()
    threads = dict.fromkeys(names, str(slot.num_threads))
    return {"TF_FORCE_GPU_ALLOW_GROWTH": "true", **threads}
