"""`evaluate` on executors: each shard is judged by a task of its own, and the sums are those of a single process.

A shard's sums depend on its records and the batches alone, and the driver adds them up in the order of the shards. So
the numbers are the same for any number of executors, and without any.
"""

from __future__ import annotations

import functools
import logging

from tfos_job import storage
from tfos_job.config import EvaluateConfig
from tfos_job.driver import task_slots, tasks
from tfos_job.driver.on_demand import Spark
from tfos_job.driver.task_slots import SlotPolicy
from tfos_job.formats import manifest
from tfos_job.layout import RunLayout
from tfos_job.protocol.topology import is_local
from tfos_job.run.evaluation_input import JudgedSplit, choose
from tfos_job.run.model_digest import model_digest
from tfos_job.scoring.plan import Model
from tfos_job.scoring.task import JudgeTask, judge_shard

_log = logging.getLogger(__name__)


def judge(spark: Spark, config: EvaluateConfig) -> JudgedSplit:
    """Judges the shards of a split on executors.

    Raises:
      JobError: as `evaluate` in one process, and NodeDiedError if a process died again and again.
    """
    found = choose(config)
    info, contents = found.info, found.contents
    model = Model(
        train_dir=RunLayout(storage.absolute(config.train_dir)).root,
        checkpoint=storage.absolute(info.path),
        model_name=config.model_name,
        digest=model_digest(info, found.arrays),
        step=info.step,
    )
    paths = manifest.shard_paths(found.split, contents)
    todo = [
        JudgeTask(
            model=model,
            path=storage.absolute(path),
            size_bytes=shard.size_bytes,
            sha256=shard.sha256,
            batch_size=config.batch_size,
            ks=config.ks,
        )
        for path, shard in zip(paths, contents.shards, strict=True)
    ]
    context = spark.sparkContext
    policy = SlotPolicy(num_gpus=config.num_gpus, is_local=is_local(context.master))
    _log.info("Evaluating step %d on %d records of %s", info.step, contents.num_records, found.split.root)
    work = functools.partial(task_slots.run, judge_shard, policy)
    shards = tasks.results(tasks.run(context, "evaluate", work, todo))
    return JudgedSplit(found._replace(arrays={}), shards, model.digest)
