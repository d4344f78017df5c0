"""`train`: one run, from the dataset and what the run's folder holds to its last checkpoint and report."""

from __future__ import annotations

import dataclasses
import logging
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark import SparkContext

from tfos_job import storage
from tfos_job.cluster import control
from tfos_job.cluster.attempt import Attempt, AttemptSpec
from tfos_job.cluster.topology import Topology, WorkerInput, assign_shards
from tfos_job.config import TrainConfig, to_dict
from tfos_job.data import manifest as manifests
from tfos_job.data.charset import Charset
from tfos_job.data.manifest import Manifest
from tfos_job.errors import BadDataError, InterruptedJobError, JobError, SettingsError
from tfos_job.jobs import session
from tfos_job.jobs.progress import Progress
from tfos_job.jobs.report import RunReport
from tfos_job.jobs.stop import StopSignal
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.lease import Lease
from tfos_job.model import checkpoints
from tfos_job.model.checkpoints import CheckpointInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The dataset as a run sees it."""

    charset: Charset
    train: Manifest
    train_shards: list[str]
    validation_shards: list[str]


@dataclass(frozen=True, kw_only=True)
class _Start:
    """Where training begins. `positions` are records of its stream that each worker has consumed."""

    checkpoint: CheckpointInfo | None
    step: int
    positions: tuple[int, ...]


def train(config: TrainConfig, master: str | None) -> dict[str, Any]:
    """Trains until the run is finished.

    Args:
      config: the run.
      master: Spark's master; None where spark-submit has set it.

    Returns:
      The run's report.

    Raises:
      JobError: whatever stopped it; the report says the same.
    """
    config = dataclasses.replace(
        config, dataset_dir=storage.absolute(config.dataset_dir), train_dir=storage.absolute(config.train_dir)
    )
    topology = Topology(config.num_ps_tasks, config.num_workers)
    settings = session.training_settings(topology, master, config.start_timeout)
    run = RunLayout(config.train_dir)
    with Lease(run.lock, "tfos-job train"):
        data = _load_data(config)
        if config.overwrite:
            _clear(run)
        total_steps = config.total_steps(data.train.num_records)
        start = _decide_start(config, run, data)
        previous = storage.read_json(run.report) if storage.exists(run.report) else None
        if previous is not None and _is_finished(config, run, start, total_steps):
            log.info("%s is finished: step %d of %d. Nothing to do", run.root, start.step, total_steps)
            return previous
        storage.write_json(run.config, to_dict(config))
        report = RunReport(run, previous if start.step else None, _facts(config, data, total_steps))
        report.begin(start.step)
        error: JobError | None = JobError("the driver ended without a word")
        try:
            _run_attempt(config, run, data, start, total_steps, topology, master, settings, report)
            error = None
        except JobError as e:
            error = e
            raise
        except KeyboardInterrupt:
            error = InterruptedJobError("interrupted")
            raise
        except Exception as e:
            error = JobError(f"{type(e).__name__}: {e}")
            raise
        finally:
            report.end(error)
        return report.values


# --- before the cluster -----------------------------------------------------------------------------------------------


def _load_data(config: TrainConfig) -> _Data:
    dataset = DatasetLayout(config.dataset_dir)
    split = dataset.split(config.dataset_split_name)
    train = manifests.load(split)
    if train.num_records == 0:
        raise BadDataError("the split has no records", place=split.root)
    validation_shards: list[str] = []
    if config.validation_split_name is not None:
        validation_split = dataset.split(config.validation_split_name)
        validation_shards = manifests.shard_paths(validation_split, manifests.load(validation_split))
    return _Data(
        charset=manifests.load_charset(dataset),
        train=train,
        train_shards=manifests.shard_paths(split, train),
        validation_shards=validation_shards,
    )


def _clear(run: RunLayout) -> None:
    """`--overwrite`: removes what a run makes, and nothing else that may lie in the folder."""
    for path in (
        run.config,
        run.report,
        run.loss_png,
        run.checkpoints_dir,
        run.summaries("train"),
        run.summaries("validation"),
        run.evaluation_dir,
    ):
        storage.remove(path)


def _decide_start(config: TrainConfig, run: RunLayout, data: _Data) -> _Start:
    there = checkpoints.candidates(run)
    if config.restore == "none" and there:
        raise SettingsError(
            f"{run.root} has checkpoints already",
            place="--restore none",
            next_step="Give another --train_dir, or --overwrite, or leave out --restore to resume",
        )
    if config.restore in ("auto", "none"):
        info = checkpoints.latest(run)
        if info is None and there:
            raise BadDataError(
                f"none of the {len(there)} checkpoints verifies",
                place=run.checkpoints_dir,
                next_step="Restore one from elsewhere, or start anew with --overwrite",
            )
    elif there:
        raise SettingsError(
            f"{run.root} has checkpoints already",
            place=f"--restore {config.restore}",
            next_step="Give another --train_dir, or --overwrite",
        )
    else:
        info = checkpoints.resolve(run, config.restore)
    if info is None:
        return _Start(checkpoint=None, step=0, positions=(0,) * config.num_workers)
    _check_identity(config, data, info, same_data=config.restore == "auto")
    return _Start(checkpoint=info, step=info.step, positions=_positions(config, data, info))


def _check_identity(config: TrainConfig, data: _Data, info: CheckpointInfo, *, same_data: bool) -> None:
    """Refuses a checkpoint of another charset or network; and, to go on with a run, of another dataset."""
    pairs = [
        ("charset", info.charset_digest[:12], data.charset.digest[:12]),
        ("network", _describe(info.model), _describe(_model(config, data))),
    ]
    if same_data:
        pairs.append(("dataset", info.dataset_digest[:12], data.train.digest[:12]))
    for name, found, wanted in pairs:
        if found != wanted:
            raise SettingsError(
                f"made with {name} {found}, asked to go on with {name} {wanted}",
                place=info.path,
                next_step="Give another --train_dir, or the settings and the dataset of this run",
            )


def _describe(model: Mapping[str, Any]) -> str:
    return "{model_name} of {num_classes} classes, image_size {image_size}, keep_prob {keep_prob}".format(**model)


def _positions(config: TrainConfig, data: _Data, info: CheckpointInfo) -> tuple[int, ...]:
    """Where each worker's stream goes on. Another division of the shards can only go on at the start of an epoch."""
    read = tuple(info.input_position.get("records_read", ()))
    same_division = len(read) == config.num_workers and info.dataset_digest == data.train.digest
    if same_division:
        return read
    epoch = sum(read) // data.train.num_records
    again = sum(read) - epoch * data.train.num_records
    log.warning("Other workers or data than at step %d: %d records of epoch %d are seen again", info.step, again, epoch)
    return tuple(epoch * sum(n for _, n in shards) for shards in _assigned(config, data))


def _is_finished(config: TrainConfig, run: RunLayout, start: _Start, total_steps: int) -> bool:
    if start.step < total_steps:
        return False
    split_name = config.validation_split_name
    return split_name is None or storage.exists(run.evaluation(start.step, split_name))


def _assigned(config: TrainConfig, data: _Data) -> tuple[tuple[tuple[str, int], ...], ...]:
    sizes = [shard.num_records for shard in data.train.shards]
    return assign_shards(list(zip(data.train_shards, sizes, strict=True)), config.num_workers)


def _model(config: TrainConfig, data: _Data) -> dict[str, Any]:
    return {
        "model_name": config.model_name,
        "num_classes": len(data.charset),
        "image_size": config.image_size,
        "keep_prob": config.keep_prob,
    }


def _facts(config: TrainConfig, data: _Data, total_steps: int) -> dict[str, Any]:
    return {
        "model": _model(config, data),
        "num_records": data.train.num_records,
        "total_steps": total_steps,
        "batch_size": config.batch_size,
        "num_workers": config.num_workers,
        "num_ps_tasks": config.num_ps_tasks,
        "dataset_digest": data.train.digest,
        "charset_digest": data.charset.digest,
    }


# --- the cluster ------------------------------------------------------------------------------------------------------


def _run_attempt(
    config: TrainConfig,
    run: RunLayout,
    data: _Data,
    start: _Start,
    total_steps: int,
    topology: Topology,
    master: str | None,
    settings: dict[str, str],
    report: RunReport,
) -> None:
    report.on_phase("spark")
    with StopSignal() as stop, session.open_session(f"tfos_job train {run.root}", master, settings) as spark:
        stop.install()  # SparkContext has put a handler of its own in place of ours.
        sc = spark.sparkContext
        spec = AttemptSpec(
            topology=topology,
            inputs=_inputs(config, data, start),
            assignment=_assignment(config, data, start, total_steps),
            num_gpus=config.num_gpus,
            driver_host=sc.getConf().get("spark.driver.host") or "",
            local=session.is_local(sc.master),
            start_timeout=config.start_timeout,
            stall_timeout=config.stall_timeout,
        )
        with Progress(start.step, total_steps, config.batch_size) as progress:

            def on_message(message: control.Message) -> None:
                report.on_message(message)
                progress.on_message(message)

            finished = run_attempt(sc, spec, on_message, report.on_phase, stop)
    if finished.interrupted:
        raise InterruptedJobError(
            f"stopped at step {finished.step} of {total_steps}, with a checkpoint there",
            next_step="Run train again to go on",
            signum=stop.signum or signal.SIGINT,
        )


def run_attempt(
    sc: SparkContext, spec: AttemptSpec, on_message: Any, on_phase: Any, stop: StopSignal
) -> control.Finished:
    """The place for restarts: a failed attempt may be followed by another in the same SparkContext."""
    return Attempt(sc, spec, on_message, on_phase, lambda: stop.signum).run()


def _inputs(config: TrainConfig, data: _Data, start: _Start) -> tuple[WorkerInput, ...]:
    inputs = []
    for worker, shards in enumerate(_assigned(config, data)):
        paths = tuple(_readable(path) for path, _ in shards)
        inputs.append(
            WorkerInput(
                worker=worker,
                seed=config.seed * 1_000_003 + worker,
                start_record=start.positions[worker],
                num_records=sum(records for _, records in shards),
                shards=paths,
            )
        )
    return tuple(inputs)


def _readable(path: str) -> str:
    """The path as TensorFlow on a node opens it."""
    local = storage.local_path(path)
    if local is None:
        raise SettingsError(
            "TensorFlow reads local paths alone, and nodes do not copy shards to their disks yet",
            place=path,
            next_step="Give a --dataset_dir on a disk that every node mounts",
        )
    return local


def _assignment(config: TrainConfig, data: _Data, start: _Start, total_steps: int) -> dict[str, Any]:
    model = _model(config, data)
    plan = {
        "model": model,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "num_workers": config.num_workers,
        "shuffle_buffer": config.shuffle_buffer,
        "augmentation": {
            "random_flip_up_down": config.random_flip_up_down,
            "random_brightness": config.random_brightness,
            "random_contrast": config.random_contrast,
        },
        "learning_rate": config.learning_rate,
        "learning_rate_decay_factor": config.learning_rate_decay_factor,
        "decay_steps": config.decay_steps,
        "start_step": start.step,
        "total_steps": total_steps,
        "positions": start.positions,
        "save_steps": config.save_steps,
        "save_seconds": config.save_seconds,
        "eval_steps": config.eval_steps,
        "validation_shards": [_readable(path) for path in data.validation_shards],
    }
    return {
        "train_dir": config.train_dir,
        "plan": plan,
        "checkpoint": start.checkpoint.path if start.checkpoint else None,
        "train_shards": [_readable(path) for path in data.train_shards],
        "validation_split_name": config.validation_split_name,
        "meta": {
            "model": model,
            "characters": "".join(data.charset.characters),
            "charset_digest": data.charset.digest,
            "dataset_digest": data.train.digest,
        },
    }
