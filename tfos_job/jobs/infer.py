"""`infer`: the classes of many inputs, on independent executors. The driver's side: plan, run on Spark, close.

An interrupted job is never wrong, only incomplete. Under the folder's lock come the plan; the parts, each published
whole by its task, with a document about it behind it; and `_SUCCESS`. The next run makes the parts that are missing.
"""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass
from typing import Any

from pyspark import SparkContext

from tfos_job import storage
from tfos_job.config import InferConfig
from tfos_job.driver import task_slots, tasks
from tfos_job.driver.on_demand import Spark
from tfos_job.driver.task_slots import SlotPolicy
from tfos_job.errors import SettingsError
from tfos_job.layout import InferenceLayout
from tfos_job.lease import Lease
from tfos_job.protocol.topology import is_local
from tfos_job.scoring import inputs, models, output, parquet
from tfos_job.scoring.inputs import InputFile
from tfos_job.scoring.plan import Model, Plan, partitions
from tfos_job.scoring.task import PartRecord, PartTask, answer_part

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InferResult:
    """The result of `infer`.

    Attributes:
      counts: of all rows (`scoring.rows.Counts`), `num_partitions`, `size_bytes`, `model_digest` and `step`.
      num_answered: partitions that this run has answered.
      up_to_date: there was nothing left to do.
    """

    output_dir: str
    counts: dict[str, Any]
    num_answered: int
    up_to_date: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values: the command's last line on stdout."""
        own = {"num_answered": self.num_answered, "up_to_date": self.up_to_date, "seconds": self.seconds}
        return {"output_dir": self.output_dir, **self.counts, **own}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be answered, by which model, and where to.

    Attributes:
      groups: the files of each partition.
    """

    output: InferenceLayout
    plan: Plan
    model: Model
    groups: list[tuple[InputFile, ...]]

    @property
    def finished(self) -> InferResult | None:
        """The result, if there is nothing left to do."""
        found = output.finished(self.output, self.plan)
        if found is None:
            return None
        return InferResult(output_dir=self.output.root, counts=found, num_answered=0, up_to_date=True, seconds=0.0)


def prepare(config: InferConfig) -> Work:
    """Looks at inputs, model and output, without Spark; writes nothing.

    Raises:
      MissingInputError: nothing to answer about, or no such model.
      SettingsError: inputs of another kind, results of another plan in the folder, or no pyarrow for Parquet.
      BadDataError: a manifest, an archive or the model is damaged.
    """
    if config.output_format == "parquet":
        parquet.require()
    _require_apart(config)
    layout = InferenceLayout(storage.absolute(config.output_dir))
    found = inputs.find(config.input)
    model = models.find(config.train_dir, config.checkpoint, config.export_dir, config.model_name)
    groups = partitions(found.files)
    plan = Plan(
        input=config.input,
        input_digest=found.digest,
        num_files=len(found.files),
        num_partitions=len(groups),
        model_digest=model.digest,
        step=model.step,
        model=model.place,
        output_format=config.output_format,
        top_k=config.top_k,
        raw_image=config.raw_image,
    )
    output.require_fitting(layout, plan)
    if found.num_left_out:
        _log.info("%d files below %s were left out by their names", found.num_left_out, config.input)
    return Work(output=layout, plan=plan, model=model, groups=groups)


def _require_apart(config: InferConfig) -> None:
    """Raises SettingsError if results would lie among what is read: the next run would find another input."""
    written = storage.absolute(config.output_dir).rstrip("/") + "/"
    if written.startswith(storage.absolute(config.input).rstrip("/") + "/"):
        raise SettingsError(
            "lies within --input", place=f"--output_dir {config.output_dir}", next_step="Give a folder outside of it"
        )


def infer(spark: Spark, config: InferConfig) -> InferResult:
    """Answers about all inputs, or goes on where a run before has ended. If there is nothing to do, Spark is not used.

    An input that cannot be read is a row with its error.

    Raises:
      JobError: as `prepare`; or of a task whose attempts are used up: the parts of others stay.
      BadDataError: no input could be read.
      BusyError: another command writes to the folder.
    """
    started_s = time.monotonic()
    work = prepare(config)
    if finished := work.finished:
        _log.info("%s has all %d answers already: nothing to do", work.output.root, finished.counts["num_rows"])
        return finished
    with Lease(work.output.lock, "tfos-job infer") as lease:
        plan_id = output.begin(work.output, work.plan)
        done = output.done_parts(work.output, work.plan)
        todo = [task for task in _tasks(config, work, plan_id) if task.number not in done]
        _log.info(
            "Answering about %d files; of %d partitions %d are done",
            *(work.plan.num_files, work.plan.num_partitions, len(done)),
        )
        records = _answer(spark.sparkContext, config, todo) if todo else []
        lease.check()
        counts = output.finish(work.output, work.plan, [*done.values(), *records])
    return InferResult(
        output_dir=work.output.root,
        counts=counts,
        num_answered=len(records),
        up_to_date=False,
        seconds=round(time.monotonic() - started_s, 3),
    )


def _tasks(config: InferConfig, work: Work, plan_id: str) -> list[PartTask]:
    return [
        PartTask(
            number=number,
            files=files,
            model=work.model,
            part=work.output.part(number, config.output_format),
            record=work.output.part_record(number),
            plan=work.output.plan,
            plan_id=plan_id,
            output_format=config.output_format,
            top_k=config.top_k,
            raw_image=config.raw_image,
            batch_size=config.batch_size,
        )
        for number, files in enumerate(work.groups)
    ]


def _answer(context: SparkContext, config: InferConfig, todo: list[PartTask]) -> list[PartRecord]:
    policy = SlotPolicy(num_gpus=config.num_gpus, is_local=is_local(context.master))
    answer = functools.partial(task_slots.run, answer_part, policy)
    return tasks.results(tasks.run(context, "infer", answer, todo))
