"""The process that predicts on executors (`scoring/task.py` starts it): TensorFlow and a model, loaded once."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import tensorflow as tf

from tfos_job import storage
from tfos_job.config.defaults import JSON_LINES, PARQUET
from tfos_job.errors import BusyError, MissingInputError, ResourceError, SettingsError
from tfos_job.formats import hashing
from tfos_job.host import gpus, service
from tfos_job.inference.answer import Answer, NoAnswer
from tfos_job.inference.answering import Answering
from tfos_job.inference.evaluation import JudgeCall, judge_function
from tfos_job.inference.out_of_memory import memory_errors
from tfos_job.inference.pictures import Request
from tfos_job.inference.predictor import Predictor
from tfos_job.input.damage import data_errors
from tfos_job.layout import RunLayout, join
from tfos_job.networks.variables import restore_model
from tfos_job.run import checkpoints
from tfos_job.run.model_digest import model_digest
from tfos_job.run.predictions import JudgedShard
from tfos_job.scoring import parquet
from tfos_job.scoring.parquet import write_parquet
from tfos_job.scoring.plan import Model
from tfos_job.scoring.rows import Counts, Row, blocks, write_json_lines
from tfos_job.scoring.task import JudgeTask, PartRecord, PartTask, PicturesTask
from tfos_job.staging.copies import local_copy

_Writer = Callable[[Iterable[list[Row]], BinaryIO, str, int | None], None]
_WRITERS: dict[str, _Writer] = {PARQUET: write_parquet, JSON_LINES: write_json_lines}
# A query may have several columns of answers, and asks for one after the other, over and over.
_MAX_MODELS = 4


@functools.lru_cache(maxsize=_MAX_MODELS)
def predictor_of(model: Model, raw_image: bool) -> Predictor:
    """The model, loaded once.

    Raises:
      SettingsError: it is no longer the one of that digest.
      ResourceError: TensorFlow does not see the GPUs of this process.
      JobError: what loading it raises.
    """
    _require_gpus()
    if model.export_dir:
        found = Predictor.exported(model.export_dir, raw_image=raw_image)
    else:
        found = Predictor(model.train_dir, model.checkpoint, raw_image=raw_image, model_name=model.model_name)
    _require_same(model, found.digest)
    return found


def _require_same(model: Model, digest: str) -> None:
    if digest != model.digest:
        raise SettingsError(
            f"the model was changed since the job began: digest {digest[:12]}, it was {model.digest[:12]}",
            place=model.place,
            next_step="Run the command again, `infer` with another --output_dir",
        )


def _require_gpus() -> None:
    wanted = gpus.allowed(os.environ)
    if wanted and not tf.config.list_physical_devices("GPU"):
        raise ResourceError(
            f"TensorFlow does not see the GPUs of this task, {', '.join(wanted)}",
            next_step="Check the driver and CUDA's libraries there (tfos-job doctor), or leave out --num_gpus",
        )


@functools.lru_cache(maxsize=1)
def _answering(model: Model, raw_image: bool, top_k: int, batch_size: int) -> Answering:
    return Answering(predictor_of(model, raw_image), top_k=top_k, batch_size=batch_size)


def answer_part(task: PartTask, got_on: Callable[[], None]) -> PartRecord:
    """Writes the part of a partition, whole, and then the document about it.

    Memory does not depend on the number of rows: they go to a local file, which is copied at the end, again if need be.
    """
    if task.output_format == PARQUET:
        parquet.load()
    answering = _answering(task.model, task.raw_image, task.top_k, task.batch_size)
    got_on()
    counts = Counts()

    def counted() -> Iterator[list[Row]]:
        nonlocal counts
        for block in blocks(answering.rows(task.files, got_on)):
            counts += Counts.of(block)
            yield block

    with tempfile.TemporaryDirectory(prefix="tfos_job-") as scratch:
        local = join(scratch, "part")
        with storage.open_write(local) as stream:
            _WRITERS[task.output_format](counted(), stream, task.model.digest, task.model.step)
        _require_plan(task)
        copied = storage.write_file(task.part, functools.partial(hashing.copy, local))
    record = PartRecord(number=task.number, size_bytes=copied.size_bytes, sha256=copied.sha256, counts=counts)
    storage.write_json(task.record, record.to_json())
    return record


@functools.lru_cache(maxsize=1)
def _judge(model: Model, batch_size: int, ks: tuple[int, ...], got_on: Callable[[], None]) -> JudgeCall:
    """The function that judges a shard, of a network that is loaded once."""
    _require_gpus()
    info, arrays = checkpoints.read_network(RunLayout(model.train_dir), model.checkpoint)
    _require_same(model, model_digest(info, arrays))
    network = restore_model(info, arrays, model.model_name)
    return judge_function(network, batch_size=batch_size, form=info.form, ks=ks, each_batch=got_on)


def judge_shard(task: JudgeTask, got_on: Callable[[], None]) -> JudgedShard:
    """Judges a shard as `evaluate` does in one process. A large network may take an hour, so each batch is a sign."""
    judge = _judge(task.model, task.batch_size, task.ks, got_on)
    with local_copy(task.path, task.size_bytes, task.sha256) as local:
        got_on()
        with data_errors([task.path], with_network=True):
            return judge(local)


def answer_pictures(task: PicturesTask) -> list[list[Any]]:
    """The answers about pictures, each as JSON values."""
    predictor = predictor_of(task.model, task.raw_image)
    nothing = MissingInputError("there is no picture, but a null")
    requests = [Request("", nothing if picture is None else picture) for picture in task.pictures]
    return [_values_of(answer) for answer in predictor.answers(requests, task.top_k)]


def _values_of(answer: Answer | NoAnswer) -> list[Any]:
    if isinstance(answer, NoAnswer):
        return [[], [], [], None, answer.to_json()["error"]]
    top = () if answer.doubtful else answer.top
    columns = [[guess.character for guess in top], [guess.class_id for guess in top], [g.probability for g in top]]
    return [*columns, answer.doubtful or None, None]


def _require_plan(task: PartTask) -> None:
    """Raises BusyError if the folder has become that of another job, while this task was left behind."""
    try:
        found = storage.read_json(task.plan)
    except (MissingInputError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("id") != task.plan_id:
        raise BusyError("the folder is that of another job by now", place=task.plan, next_step="Nothing was written")


def work(request: dict[str, Any], got_on: Callable[[], None]) -> Any:
    """Answers a request of `scoring/task.py`."""
    task = request["task"]
    with memory_errors(task.get("batch_size")):
        if request["do"] == "pictures":
            return answer_pictures(PicturesTask.from_json(task))
        if request["do"] == "judge":
            return judge_shard(JudgeTask.from_json(task), got_on).to_json()
        return answer_part(PartTask.from_json(task), got_on).to_json()


if __name__ == "__main__":
    service.serve(work)
