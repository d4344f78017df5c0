"""`predict_udf`: a run or an exported network as a function of a Spark DataFrame's column.

pandas and pyarrow, which Spark hands columns over with, are of the extra `infer`.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pyspark import SparkContext

from tfos_job.config.defaults import PREDICTED_BATCH
from tfos_job.driver.task_slots import SlotPolicy, slot_of
from tfos_job.errors import SettingsError
from tfos_job.protocol.topology import is_local
from tfos_job.scoring import models
from tfos_job.scoring.plan import Model
from tfos_job.scoring.task import PicturesTask, answer_pictures

if TYPE_CHECKING:
    import pandas
    from pyspark.sql import Column

SCHEMA = "classes array<string>, class_ids array<int>, probabilities array<float>, doubtful string, error string"
"""Of an answer, as in the rows of `infer`."""
_LIBRARIES = ("pandas", "pyarrow")


def predict_udf(
    train_dir: str | os.PathLike[str] | None = None,
    *,
    export_dir: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] = "last",
    top_k: int = 3,
    raw_image: bool = False,
    num_gpus: int = 0,
    model_name: str | None = None,
) -> Callable[..., Column]:
    """A function of a column of pictures: bytes of PNG, JPEG or GIF files, or their paths.

    ::

        answers = files.withColumn("answer", predict_udf("run")("content"))
        answers.select("path", "answer.classes", "answer.probabilities", "answer.error")

    Each Python worker of Spark has a process beside it that loads TensorFlow and the network once.

    Args:
      train_dir: folder of the run that answers.
      export_dir: folder of an exported network instead; its highest version answers.
      checkpoint: of the run: `last`, `best` or the path of a checkpoint's folder. It is chosen now.
      top_k: number of classes; all of them if there are fewer.
      raw_image: as of `Predictor`.
      num_gpus: GPUs of each task, which Spark must have assigned to it.
      model_name: as of `Predictor`.

    Returns:
      A pandas function. An answer has the fields of `SCHEMA`: the most probable classes first, none for a picture that
      may show no character (`doubtful` says why) or cannot be read (`error`).

    Raises:
      MissingInputError: there is no such model.
      BadDataError: it is damaged.
      SettingsError: pandas or pyarrow is missing; both folders or none are given; `top_k` is no number of 1 or more.
    """
    _require_libraries()
    if not isinstance(top_k, int) or top_k < 1:
        raise SettingsError(f"{top_k!r} is not a whole number of 1 or more", place="top_k")
    model = models.find(
        None if train_dir is None else os.fspath(train_dir),
        os.fspath(checkpoint),
        None if export_dir is None else os.fspath(export_dir),
        model_name,
    )
    context: SparkContext | None = SparkContext._active_spark_context
    policy = SlotPolicy(num_gpus=num_gpus, is_local=context is not None and is_local(context.master))
    import pandas
    from pyspark.sql.functions import pandas_udf

    answer_batches = functools.partial(_answer_batches, model, policy, top_k, raw_image)

    def answer(batches: Any) -> Any:
        return answer_batches(batches)

    # What Spark tells the kind of function by; this module's names are not imported for it.
    answer.__annotations__ = {"batches": Iterator[pandas.Series], "return": Iterator[pandas.DataFrame]}
    found: Callable[..., Column] = pandas_udf(answer, SCHEMA)
    return found


def _require_libraries() -> None:
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"Spark needs {' and '.join(missing)} for functions of columns, not installed in this Python",
            place="predict_udf",
            next_step="pip install 'tfos_job[infer]', on every node",
        )


def _answer_batches(
    model: Model, policy: SlotPolicy, top_k: int, raw_image: bool, batches: Iterator[pandas.Series]
) -> Iterator[pandas.DataFrame]:
    """The answers of a task, batch by batch. On executors."""
    import pandas

    names = [field.split()[0] for field in SCHEMA.split(", ")]
    slot = slot_of(policy)
    for batch in batches:
        pictures = batch.tolist()
        answers: list[Any] = []
        for first in range(0, len(pictures), PREDICTED_BATCH):
            part = tuple(pictures[first : first + PREDICTED_BATCH])
            task = PicturesTask(model=model, pictures=part, top_k=top_k, raw_image=raw_image)
            answers += answer_pictures(task, slot)
        yield pandas.DataFrame(answers, columns=names)
