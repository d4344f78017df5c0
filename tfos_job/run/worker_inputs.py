"""The input of each worker of a run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfos_job.config import PRELOADED, TrainConfig
from tfos_job.protocol.topology import WorkerInput
from tfos_job.run.training_data import TrainingData, readable
from tfos_job.staging.cache_plan import CachePlan, Copy

_SEED_STEP = 1_000_003  # between the first workers of runs with neighbouring seeds: above any number of workers


def worker_inputs(config: TrainConfig, data: TrainingData, positions: Sequence[int]) -> tuple[WorkerInput, ...]:
    """The shards of each worker, and its position in them.

    A worker copies its own remote shards and those of the whole validation split: any worker may evaluate any shard.

    Args:
      config: the run's flags.
      data: its dataset.
      positions: records of its stream that each worker has consumed.
    """
    copies = {copy.source: copy for copy in data.train.copies}
    return tuple(_worker_input(config, data, copies, worker, position) for worker, position in enumerate(positions))


def _worker_input(
    config: TrainConfig, data: TrainingData, copies: Mapping[str, Copy], worker: int, position: int
) -> WorkerInput:
    shards, num_records = data.parts[worker], data.part_sizes[worker]
    seed = config.seed * _SEED_STEP + worker
    is_preloaded = data.input_mode == PRELOADED
    cache_plan = CachePlan(
        shards=tuple(copies[path] for path, _ in shards if path in copies),
        pinned=data.validation.copies if data.validation else (),
        seed=seed,
        first_epoch=position // num_records,
        once=is_preloaded,
        window=1 if is_preloaded else data.window,
        cache_bytes=config.cache_bytes,
    )
    return WorkerInput(
        worker=worker,
        seed=seed,
        start_record=position,
        num_records=num_records,
        shards=tuple(readable(path) for path, _ in shards),
        cache_plan=cache_plan if data.is_remote else None,
    )
