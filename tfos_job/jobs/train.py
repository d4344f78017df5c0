"""`train`: one run, from the dataset and what the run's folder holds to its last checkpoint and report."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tfos_job import storage
from tfos_job.config import (
    DATASET,
    EXTENT,
    NETWORKS,
    NO_NORMALIZATION,
    ORIGIN,
    PCA,
    PER_IMAGE,
    PRELOADED,
    RECIPE,
    ZCA,
    TrainConfig,
    to_dict,
)
from tfos_job.conversion.dataset import refuse_non_folder
from tfos_job.doctor.case import Expected
from tfos_job.doctor.diagnosis import FAILED as CHECK_FAILED
from tfos_job.doctor.diagnosis import WARNING as CHECK_WARNING
from tfos_job.driver import preflight, session
from tfos_job.driver.attempt import Attempt, AttemptSpec
from tfos_job.driver.progress import ProgressLine
from tfos_job.driver.run_report import FAILED, FINISHED, RunReport
from tfos_job.driver.statistics_job import statistics_of
from tfos_job.driver.stop_signal import StopSignal
from tfos_job.errors import (
    BadDataError,
    BusyError,
    InterruptedJobError,
    JobError,
    MissingInputError,
    SettingsError,
    exit_code_class,
)
from tfos_job.formats import manifest as manifests
from tfos_job.formats import readers
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.readers import READERS, Reader
from tfos_job.host import calls, container, signals
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.lease import TTL_S, Lease
from tfos_job.protocol import messages
from tfos_job.protocol.topology import Topology, WorkerInput, assign_shards, largest_part, topology_of
from tfos_job.run import checkpoints, resume
from tfos_job.run.checkpoints import CheckpointInfo
from tfos_job.run.resume import Change
from tfos_job.staging.cache_plan import MAX_WINDOW, CachePlan, Copy
from tfos_job.staging.stager import RESERVE_BYTES, copies_of
from tfos_job.statistics.pixel_statistics import PIXELS, WHITENING, Subject

log = logging.getLogger(__name__)

_KILL_DELAY_MS = "yarn.nodemanager.sleep-delay-before-sigkill.ms"
_MIB = 1 << 20
_SHARDS_PER_WORKER = 4  # fewer, and workers end their epochs at different times


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The dataset as a run sees it. Copies are what a remote one needs on a worker's disk; a local one needs none."""

    charset: Charset
    train: Manifest
    train_shards: list[str]
    validation_shards: list[str]
    train_copies: tuple[Copy, ...]
    validation_copies: tuple[Copy, ...]

    @property
    def reader(self) -> Reader:
        return READERS[self.train.dataset_name]

    @property
    def is_remote(self) -> bool:
        return bool(self.train_copies)


@dataclass(frozen=True, kw_only=True)
class _Start:
    """Where training begins.

    Attributes:
      positions: records of its stream that each worker has consumed.
      records: `RunReport.begin`'s.
    """

    checkpoint: CheckpointInfo | None
    step: int
    positions: tuple[int, ...]
    records: dict[str, int] | None


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is settled before anything is started.

    Attributes:
      stored: the settings that the run has had so far; None for a new one.
      changes: what `config` has otherwise.
      clear: all that the folder holds of a run makes way for this one.
    """

    config: TrainConfig
    run: RunLayout
    data: _Data
    start: _Start
    total_steps: int
    stored: TrainConfig | None
    changes: list[Change]
    clear: bool


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
        config,
        dataset_dir=storage.absolute(config.dataset_dir),
        train_dir=storage.absolute(config.train_dir),
        checkpoint_path=storage.absolute(config.checkpoint_path) if config.checkpoint_path else None,
    )
    # Raises where slots are missing.
    session.training_settings(topology_of(config, master), master, config.start_timeout)
    run = RunLayout(config.train_dir)
    # YARN begins an attempt when the one before is dead, which may still look alive in the lock of another host.
    wait_s = 2 * TTL_S if container.attempt_number() > 1 else 0.0
    with Lease(run.lock, "tfos-job train", wait_s=wait_s) as lease:
        # All that can be refused is refused before anything of the run is touched.
        data = _load_data(config)
        total_steps = config.total_steps(data.train.num_records)
        previous = storage.read_json(run.report) if storage.exists(run.report) else None
        is_next_attempt = _is_next_attempt(previous)
        _refuse_repetition(previous, is_next_attempt)
        clear = config.overwrite and not is_next_attempt
        stored = None if clear else resume.read(run)
        changes = [] if clear else _changes(config, run, stored)
        if clear or not checkpoints.candidates(run):
            _rehearse(config, data)
        start = (
            _anew(config) if clear else _decide_start(config, run, data, total_steps, is_next_attempt=is_next_attempt)
        )
        finished = start.step >= total_steps and _is_evaluated(config, run, start)
        if finished and previous is not None and previous["state"] == FINISHED:
            log.info("%s is finished: step %d of %d. Nothing to do", run.root, start.step, total_steps)
            return previous
        job = _Job(
            config=config,
            run=run,
            data=data,
            start=start,
            total_steps=total_steps,
            stored=stored,
            changes=changes,
            clear=clear,
        )
        _inputs(job)  # raises for what fits no worker
        _say_start(job)
        report = RunReport(run, previous if start.step else None, _facts(config, data, total_steps), held=clear)
        report.begin(start.step, start.checkpoint.path if start.checkpoint else None, start.records)
        with _account(report, lease):
            if finished:
                log.info("All %d steps of %s are done: only its report was missing", start.step, run.root)
                _commit(job, report)
            else:
                _run_attempt(job, master, report, lease)
        return report.values


def check(config: TrainConfig) -> dict[str, Any] | None:
    """What can be refused by a look at the dataset and the run's folder, without changing anything.

    Returns:
      The run's report where it is finished already.

    Raises:
      JobError: as `train` would.
    """
    data = _load_data(config)
    run = RunLayout(config.train_dir)
    if not config.overwrite:
        _changes(config, run, resume.read(run))
    # One's own network may be on the cluster alone, brought there by --py-files.
    if config.model_name in NETWORKS and (config.overwrite or not checkpoints.candidates(run)):
        _rehearse(config, data)
    if config.overwrite or not storage.exists(run.report):
        return None
    report = storage.read_json(run.report)
    is_finished = report["state"] == FINISHED and report["step"] >= config.total_steps(data.train.num_records)
    return report if is_finished else None


def _changes(config: TrainConfig, run: RunLayout, stored: TrainConfig | None) -> list[Change]:
    """What the command has otherwise than the run, beside the folder that its dataset has moved to.

    Raises:
      SettingsError: it is the recipe of steps that are done, and nobody has asked for another one; or nobody knows it.
    """
    has_begun = bool(checkpoints.candidates(run))
    if stored is None:
        if has_begun and not config.change_settings:
            raise SettingsError(
                "the run has checkpoints, and its settings are gone",
                place=run.config,
                next_step="Restore the file (attempts/ has the settings of each attempt), or give all settings and "
                "--change_settings",
            )
        return []
    if has_begun:
        resume.require_same_recipe(run, stored, config)
        for change in resume.changes(stored, config, ORIGIN):
            if change.new != TrainConfig.__dataclass_fields__[change.name].default:
                log.warning("--%s %s is of no account: the run has begun", change.name, change.new)
    return resume.changes(stored, config, RECIPE, EXTENT)


def _say_start(job: _Job) -> None:
    """One line: what is resumed, where, with what."""
    config = job.config
    changes = f" but {resume.listed(job.changes)}" if job.changes else ""
    if job.start.checkpoint is None:
        if job.stored is not None:
            log.info("%s has no checkpoint: beginning it with the settings it has%s", job.run.root, changes)
        return
    log.info(
        "Resuming %s at step %d of %d: %s on %s (%s), batch %d, learning rate %g %s, with the run's own settings%s",
        job.run.root,
        job.start.step,
        job.total_steps,
        config.model_name,
        config.dataset_dir,
        config.dataset_split_name,
        config.batch_size,
        config.learning_rate,
        config.learning_rate_decay_type,
        changes,
    )


def _commit(job: _Job, report: RunReport) -> _Job:
    """Writes what the run now is, with `--overwrite` in place of what was there: from here on it is being changed.

    Returns:
      The job, with the checkpoint that it begins with in the run's own folder.
    """
    run, config = job.run, job.config
    if job.clear:
        _clear(run)
    checkpoints.sweep(run)
    storage.remove(run.scratch_dir)
    kept = resume.with_origin(config, job.stored) if checkpoints.candidates(run) else config
    storage.write_json(run.config, to_dict(kept))
    report.commit(resume.write_attempt(run, config, job.changes, job.data.train.digest), job.changes)
    return dataclasses.replace(job, start=_adopt(run, job.start))


def _is_next_attempt(previous: dict[str, Any] | None) -> bool:
    """Whether an earlier attempt of the same YARN application has worked on the run."""
    return bool(previous and container.application_id() and previous.get("application") == container.application_id())


def _refuse_repetition(previous: dict[str, Any] | None, is_next_attempt: bool) -> None:
    """YARN runs an application again whatever it failed of; what would fail again ends here, with the same words.

    Raises:
      JobError: that of the attempt before.
    """
    if previous is None or not is_next_attempt or previous["state"] != FAILED:
        return
    kind = exit_code_class(previous["exit_code"])
    if not kind.retryable:
        log.warning("The attempt before has failed for good: not run again")
        raise kind(**previous["first_cause"])


@contextlib.contextmanager
def _account(report: RunReport, lease: Lease) -> Iterator[None]:
    """Ends the report with what ends the `with`; what goes wrong with the report itself hides nothing."""
    error: BaseException | None = None
    try:
        yield
        lease.check()
    except BaseException as e:
        error = e
        raise
    finally:
        try:
            if error is None or _is_ours(report, lease):
                report.end(_as_job_error(error))
        except JobError as e:
            if error is None:
                raise
            log.warning("The report could not be written: %s", e)


def _is_ours(report: RunReport, lease: Lease) -> bool:
    """Whether the run's report is ours to end: with the lock, or while nobody has begun after its loss."""
    try:
        lease.check()
    except BusyError:
        return report.is_undisturbed()
    return True


def _as_job_error(error: BaseException | None) -> JobError | None:
    if error is None or isinstance(error, JobError):
        return error
    interrupted = signals.interruption(error, "Run train again to go on from the last checkpoint")
    return interrupted or JobError(f"{type(error).__name__}: {error}")


# --- before the cluster -----------------------------------------------------------------------------------------------


def _load_data(config: TrainConfig) -> _Data:
    refuse_non_folder(config.dataset_dir, "--dataset_dir")
    dataset = DatasetLayout(config.dataset_dir)
    split = dataset.split(config.dataset_split_name)
    train = manifests.load(split)
    if train.num_records == 0:
        raise BadDataError("the split has no records", place=split.root)
    config.require_channels(train.num_channels)
    readers.resolve(config.dataset_name, train.dataset_name, split.root)
    validation_shards: list[str] = []
    validation_copies: tuple[Copy, ...] = ()
    if config.validation_split_name is not None:
        validation_split = dataset.split(config.validation_split_name)
        validation = manifests.load(validation_split)
        if validation.num_channels != train.num_channels:
            raise SettingsError(
                f"images of {validation.num_channels} channel(s), those of {split.root} have {train.num_channels}",
                place=validation_split.root,
                next_step="Convert both with the same --num_channels",
            )
        validation_shards = manifests.shard_paths(validation_split, validation)
        validation_copies = copies_of(validation_split, validation, "validation")
    data = _Data(
        charset=manifests.load_charset(dataset),
        train=train,
        train_shards=manifests.shard_paths(split, train),
        validation_shards=validation_shards,
        train_copies=copies_of(split, train, "train"),
        validation_copies=validation_copies,
    )
    _assigned(config, data)  # raises where there are too few shards
    if _input_mode(config, data) != PRELOADED and _shuffle_buffer(config, data) < config.shuffle_buffer:
        log.warning(
            "A record of %s has %d bytes in the mean, so the shuffle buffer holds %d, not %d",
            split.root,
            train.record_bytes,
            _shuffle_buffer(config, data),
            config.shuffle_buffer,
        )
    if len(train.shards) < _SHARDS_PER_WORKER * config.num_workers:
        log.warning(
            "%s has %d shards for %d workers, and %d for each of them is few: they cannot be given equal parts. "
            "Convert it with a smaller --target_shard_mb",
            split.root,
            len(train.shards),
            config.num_workers,
            _SHARDS_PER_WORKER,
        )
    return data


def _rehearse(config: TrainConfig, data: _Data) -> None:
    """Builds the network of a new run, where that may fail: it takes some seconds.

    Raises:
      JobError: as the coordinator would, after all nodes have started.
    """
    weights, scopes = _initial_weights(config, data), config.scopes_to_train
    if config.model_name in NETWORKS and not (weights or scopes):
        return
    if config.checkpoint_path is not None and not storage.exists(config.checkpoint_path):
        raise MissingInputError("no weights there", place=f"--checkpoint_path {config.checkpoint_path}")
    if config.overwrite and f"{config.checkpoint_path}/".startswith(f"{config.train_dir.rstrip('/')}/"):
        raise SettingsError(
            f"{config.checkpoint_path} is in the folder that is to be cleared",
            place="--checkpoint_path",
            next_step="Give another --train_dir, or leave out --overwrite",
        )
    log.info("Building the network once, to see whether it can be")
    calls.call(
        "tfos_job.training.rehearsal",
        {"model": _model(config, data), "trainable_scopes": scopes, "initial_weights": weights},
        name="the process that builds the network",
        if_killed="If nobody killed it, it ran out of memory: give the driver more",
    )


def _initial_weights(config: TrainConfig, data: _Data) -> dict[str, Any]:
    """Arguments of `finetuning.load_weights` but the network; empty for fresh weights."""
    if not config.initial_weights:
        return {}
    return config.initial_weights | {
        "normalization": config.normalization,
        "charset_digest": data.charset.digest,
    }


def _clear(run: RunLayout) -> None:
    """`--overwrite`: removes what a run makes, and nothing else that may lie in the folder; its settings last.

    Where this is cut off, what is left of the run is still known for what it is.
    """
    for path in (
        run.checkpoints_dir,
        run.summaries("train"),
        run.summaries("validation"),
        run.evaluation_dir,
        run.loss_png,
        run.statistics,
        run.report,
        run.attempts_dir,
        run.config,
    ):
        storage.remove(path)


def _anew(config: TrainConfig) -> _Start:
    return _Start(checkpoint=None, step=0, positions=(0,) * config.num_workers, records=_records(0, 0))


def _decide_start(
    config: TrainConfig, run: RunLayout, data: _Data, total_steps: int, *, is_next_attempt: bool
) -> _Start:
    there = checkpoints.candidates(run)
    restore = "auto" if there and is_next_attempt else config.restore
    if there and restore not in ("auto", "none") and _began_with(run) == restore:
        restore = "auto"  # The same command once more: the run that it began goes on.
    if restore == "none" and there:
        raise SettingsError(
            f"{run.root} has checkpoints already",
            place="--restore none",
            next_step="Give another --train_dir, or --overwrite, or leave out --restore to resume",
        )
    if restore in ("auto", "none"):
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
            place=f"--restore {restore}",
            next_step="Give another --train_dir, or --overwrite",
        )
    else:
        info = checkpoints.resolve(run, restore)
        if info.step >= total_steps:
            raise SettingsError(
                f"the checkpoint is of step {info.step}, and the run is to end at step {total_steps}",
                place=f"--restore {restore}",
                next_step="Give more --max_number_of_steps or --epoch: steps are counted from the checkpoint's own",
            )
    if info is None:
        return _anew(config)
    _check_identity(config, data, info, run if restore == "auto" else None)
    positions, records = _positions(config, data, info)
    return _Start(checkpoint=info, step=info.step, positions=positions, records=records)


def _began_with(run: RunLayout) -> str | None:
    """`--restore` of the command that began the run."""
    stored = resume.read(run)
    return stored.restore if stored else None


def _check_identity(config: TrainConfig, data: _Data, info: CheckpointInfo, run: RunLayout | None) -> None:
    """Refuses a checkpoint of another charset or network; and, to go on with a run, of another dataset.

    `run` is None for a checkpoint from elsewhere. A run may have been committed to other data, or another dropout, than
    its last checkpoint is of.
    """
    pairs = [
        ("charset", info.charset_digest[:12], data.charset.digest[:12]),
        ("normalization", _describe_normalization(info.normalization), _describe_normalization(_normalization(config))),
        ("network", *(_describe(model, with_dropout=run is None) for model in (info.model, _model(config, data)))),
        ("trainable scopes", _listed(info.trainable_scopes), _listed(config.scopes_to_train)),
    ]
    if run is not None and not config.change_settings and resume.dataset_digest(run) != data.train.digest:
        pairs.append(("dataset", info.dataset_digest[:12], data.train.digest[:12]))
    for name, found, wanted in pairs:
        if found != wanted:
            raise SettingsError(
                f"made with {name} {found}, asked to go on with {name} {wanted}",
                place=info.path,
                next_step="Give another --train_dir, or the settings and the dataset of this run",
            )


def _describe(model: Mapping[str, Any], *, with_dropout: bool) -> str:
    shape = " × ".join(str(model[name]) for name in ("image_size", "image_size", "num_channels"))
    text = f"{model['model_name']} of {model['num_classes']} classes, images {shape}"
    return f"{text}, keep_prob {model['keep_prob']}" if with_dropout else text


def _listed(scopes: Sequence[str]) -> str:
    return ", ".join(scopes) or "all"


def _normalization(config: TrainConfig) -> dict[str, Any]:
    """What a checkpoint says of it, but for the digest of the statistics."""
    is_whitening = config.normalization in (PCA, ZCA)
    return {"kind": config.normalization, "epsilon": config.whitening_epsilon if is_whitening else None}


def _describe_normalization(normalization: Mapping[str, Any]) -> str:
    epsilon = normalization.get("epsilon")
    return normalization["kind"] + (f" with epsilon {epsilon}" if epsilon is not None else "")


def _positions(config: TrainConfig, data: _Data, info: CheckpointInfo) -> tuple[tuple[int, ...], dict[str, int] | None]:
    """Where each worker's stream goes on, and the `_records` that this costs.

    Another order, or another division of the shards, can only go on at the start of an epoch: the one that the workers
    together are in.
    """
    read = tuple(info.input_position.get("records_read", ()))
    is_same_data = info.dataset_digest == data.train.digest
    if is_same_data and info.input_position.get("order") == _order(config, data):
        return read, _records(0, 0)
    epoch = sum(read) // data.train.num_records
    records = None
    if is_same_data and read:
        # Workers that are not synchronous need not be in the same epoch.
        ahead = [n - epoch * part for n, part in zip(read, _part_sizes(data, len(read)), strict=True)]
        records = _records(sum(n for n in ahead if n > 0), -sum(n for n in ahead if n < 0))
    log.warning(
        "Other workers, seed, input mode, buffer, cache or data than at step %d: epoch %d begins anew; %s",
        info.step,
        epoch,
        "{seen_twice} records are seen twice, {skipped} skipped".format(**records) if records else "other records",
    )
    return tuple(epoch * part for part in _part_sizes(data, config.num_workers)), records


def _records(seen_twice: int, skipped: int) -> dict[str, int]:
    """What a resumption does to the epochs that it touches, in records."""
    return {"seen_twice": seen_twice, "skipped": skipped}


def _part_sizes(data: _Data, num_workers: int) -> list[int]:
    """Records of each worker's part."""
    return [sum(n for _, n in part) for part in assign_shards(_sized_shards(data), num_workers)]


def _order(config: TrainConfig, data: _Data) -> dict[str, Any]:
    """What, beside the shards, decides which record is where in a worker's stream."""
    mode = _input_mode(config, data)
    order = {"num_workers": config.num_workers, "seed": config.seed, "input_mode": mode}
    if mode == PRELOADED:
        return order
    return order | {"shuffle_buffer": _shuffle_buffer(config, data), "window": _window(config, data)}


def _input_mode(config: TrainConfig, data: _Data) -> str:
    """One for all workers: they run the same graph."""
    return config.resolved_input_mode(largest_part(_sized_shards(data), config.num_workers), data.train.num_channels)


def _shuffle_buffer(config: TrainConfig, data: _Data) -> int:
    """In records. Photographs are larger than glyphs, and ten thousand of them would not fit a worker's memory."""
    return config.buffered_records(data.train.record_bytes)


def _is_evaluated(config: TrainConfig, run: RunLayout, start: _Start) -> bool:
    split_name = config.validation_split_name
    return split_name is None or storage.exists(run.evaluation(start.step, split_name))


def _adopt(run: RunLayout, start: _Start) -> _Start:
    """Gives the run its own copy of a checkpoint from elsewhere: it has one to go back to from the first moment on."""
    info = start.checkpoint
    if info is None or info.path == run.checkpoint(info.step):
        return start
    path = checkpoints.publish(run, info.step, checkpoints.load(info), info.meta)
    return dataclasses.replace(start, checkpoint=checkpoints.verify(path))


def _assigned(config: TrainConfig, data: _Data) -> tuple[tuple[tuple[str, int], ...], ...]:
    return assign_shards(_sized_shards(data), config.num_workers)


def _sized_shards(data: _Data) -> list[tuple[str, int]]:
    return [(path, shard.num_records) for path, shard in zip(data.train_shards, data.train.shards, strict=True)]


def _model(config: TrainConfig, data: _Data) -> dict[str, Any]:
    return {
        "model_name": config.model_name,
        "num_classes": len(data.charset),
        "image_size": config.side,
        "num_channels": data.train.num_channels,
        "keep_prob": config.keep_prob,
    }


def _facts(config: TrainConfig, data: _Data, total_steps: int) -> dict[str, Any]:
    return {
        "model": _model(config, data),
        "num_records": data.train.num_records,
        "total_steps": total_steps,
        "batch_size": config.batch_size,
        "input_mode": _input_mode(config, data),
        "records_per_worker": [sum(records for _, records in part) for part in _assigned(config, data)],
        "num_workers": config.num_workers,
        "num_ps_tasks": config.num_ps_tasks,
        "dataset_digest": data.train.digest,
        "charset_digest": data.charset.digest,
    }


# --- the cluster ------------------------------------------------------------------------------------------------------


def _run_attempt(job: _Job, master: str | None, report: RunReport, lease: Lease) -> None:
    config, topology = job.config, topology_of(job.config, master)
    settings = session.training_settings(topology, master, config.start_timeout)
    report.on_phase("spark")
    # Before there is a cluster, and after, a signal ends the command at once.
    with _open_session(job, master, settings) as spark, StopSignal() as stop:
        sc = spark.sparkContext
        if not session.is_local(sc.master):
            report.on_phase("preflight")
            _examine(spark, job, topology, report, stop, lease)
        job = _commit(job, report)
        normalization = _statistics(sc, job, report, stop, lease)
        spec = AttemptSpec(
            topology=topology,
            inputs=_inputs(job),
            assignment=_assignment(job, normalization) | {"lock_token": lease.token},
            num_gpus=config.num_gpus,
            driver_host=sc.getConf().get("spark.driver.host") or "",
            local=session.is_local(sc.master),
            start_timeout=config.start_timeout,
            stall_timeout=config.stall_timeout,
            stop_timeout=_stop_timeout(config, sc),
            allow_cpu=config.allow_cpu,
            port_range=config.ports,
        )
        with ProgressLine(job.start.step, job.total_steps, config.batch_size) as progress:

            def on_message(message: messages.ToDriver) -> None:
                report.on_message(message)
                progress.on_message(message)

            # The place for restarts: a failed attempt may be followed by another in the same SparkContext.
            attempt = Attempt(
                sc, spec, on_message=on_message, on_phase=report.on_phase, stop=stop, guard=lease.check_quickly
            )
            finished = attempt.run()
    if finished.interrupted:
        raise InterruptedJobError(
            f"stopped at step {finished.step} of {job.total_steps}"
            + (", with a checkpoint there" if finished.step else "")
            + (" and its evaluation to be done" if finished.step == job.total_steps else ""),
            next_step="Run train again to go on",
            signum=stop.signum or signal.SIGINT,
        )


def _open_session(
    job: _Job, master: str | None, settings: Mapping[str, str]
) -> contextlib.AbstractContextManager[SparkSession]:
    name, limit_s = f"tfos_job train {job.run.root}", job.config.start_timeout
    return session.open_session(name, master, settings, start_timeout=limit_s)


def _stop_timeout(config: TrainConfig, sc: SparkContext) -> float:
    """In YARN's cluster mode no longer than YARN waits between SIGTERM and SIGKILL to the driver's container."""
    if not (session.in_cluster_mode() and container.application_id()):
        return config.stop_timeout
    settings: Any = sc._jsc.hadoopConfiguration()
    return min(config.stop_timeout, int(settings.get(_KILL_DELAY_MS, "250")) / 1000)


def _examine(
    spark: SparkSession, job: _Job, topology: Topology, report: RunReport, stop: StopSignal, lease: Lease
) -> None:
    """Looks whether every executor has what the job needs, before a GPU second is spent.

    Raises:
      JobError: it names everything that is missing.
    """
    config = job.config
    needed = [worker.cache_plan.least_bytes if worker.cache_plan else 0 for worker in _inputs(job)]
    expected = Expected(
        num_executors=topology.num_spark_executors,
        num_gpus=config.num_gpus,
        num_gpu_nodes=config.num_workers,
        num_driver_nodes=topology.num_driver_ps_tasks,
        allow_cpu=config.allow_cpu,
        min_free_bytes=max(needed) + RESERVE_BYTES,
        port_range=config.ports,
        folder=config.train_dir,
        start_timeout=config.start_timeout,
    )
    diagnosis = preflight.examine(spark, expected, lambda: _guard(stop, lease))
    noticed = [check for check in diagnosis.checks if check.state in (CHECK_WARNING, CHECK_FAILED)]
    report.values["preflight"] = [dataclasses.asdict(check) for check in noticed]
    for check in noticed:
        log.warning("%s: %s: %s", check.state, check.name, check)
    diagnosis.raise_for_failures()
    log.info("%d executors have what the job needs (%.1f s)", len(diagnosis.executors), diagnosis.seconds)


def _statistics(sc: SparkContext, job: _Job, report: RunReport, stop: StopSignal, lease: Lease) -> dict[str, Any]:
    """What `--normalization` needs to know of the training split: kind, epsilon, digest and path of the statistics.

    A run that begins with a checkpoint goes on with those that lie in it, which the network was trained with.
    """
    config, data = job.config, job.data
    found: dict[str, Any] = {**_normalization(config), "digest": None, "statistics": None}
    if job.start.checkpoint is not None:
        return found | {"digest": job.start.checkpoint.normalization.get("digest")}
    if config.normalization in (NO_NORMALIZATION, PER_IMAGE):
        return found
    dataset = DatasetLayout(config.dataset_dir)
    subject = Subject(
        kind=PIXELS if config.normalization == DATASET else WHITENING,
        split_name=config.dataset_split_name,
        dataset_digest=data.train.digest,
        image_size=config.side,
        num_channels=data.train.num_channels,
        antialias=data.reader.antialias,
    )
    report.on_phase("statistics")
    made, path = statistics_of(sc, dataset, data.train, subject, run=job.run, guard=lambda: _guard(stop, lease))
    return found | {"digest": made.digest, "statistics": path}


def _guard(stop: StopSignal, lease: Lease) -> None:
    """Raises where the job is to end before its first step."""
    lease.check_quickly()
    if stop.signum is not None:
        raise InterruptedJobError("stopped before the first step", signum=stop.signum)


def _inputs(job: _Job) -> tuple[WorkerInput, ...]:
    """What each worker reads. Remote shards are brought to it: its own, and of validation all, as nobody knows which.

    (The coordinator hands a shard of the validation split to whichever worker is free.)
    """
    config, data = job.config, job.data
    copies = {copy.source: copy for copy in data.train_copies}
    mode = _input_mode(config, data)
    inputs = []
    for worker, shards in enumerate(_assigned(config, data)):
        seed = config.seed * 1_000_003 + worker
        num_records = sum(records for _, records in shards)
        start_record = job.start.positions[worker]
        cache_plan = CachePlan(
            shards=tuple(copies[path] for path, _ in shards if path in copies),
            pinned=data.validation_copies,
            seed=seed,
            first_epoch=start_record // num_records,
            once=mode == PRELOADED,
            window=1 if mode == PRELOADED else _window(config, data),
            cache_bytes=config.cache_bytes,
        )
        inputs.append(
            WorkerInput(
                worker=worker,
                seed=seed,
                start_record=start_record,
                num_records=num_records,
                shards=tuple(_readable(path) for path, _ in shards),
                cache_plan=cache_plan if data.is_remote else None,
            )
        )
    return tuple(inputs)


def _window(config: TrainConfig, data: _Data) -> int:
    """Shards that are read at a time, one number for all workers.

    Raises:
      SettingsError: `--cache_gb` holds none.
    """
    if config.cache_bytes is None or not data.is_remote:
        return MAX_WINDOW
    largest = max(copy.size_bytes for copy in data.train_copies)
    if config.cache_bytes < largest:
        raise SettingsError(
            f"{config.cache_bytes / _MIB:,.2f} MiB are less than the largest shard has, {largest / _MIB:,.2f}",
            place="--cache_gb",
            next_step="Give more, or convert with a smaller --target_shard_mb",
        )
    return min(MAX_WINDOW, config.cache_bytes // largest)


def _readable(path: str) -> str:
    """The path as TensorFlow on a node opens it."""
    return storage.local_path(path) or path


def _assignment(job: _Job, normalization: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `coordinator.Assignment`: all but the cluster's and the lock's. `normalization` is `_statistics`'s."""
    config, data, start = job.config, job.data, job.start
    model = _model(config, data)
    plan = {
        **config.recipe,
        "model": model,
        "num_workers": config.num_workers,
        "input_mode": _input_mode(config, data),
        "staged": data.is_remote,
        "window": _window(config, data),
        "shuffle_buffer": _shuffle_buffer(config, data),
        "antialias": data.reader.antialias,
        "normalization": normalization,
        "initial_weights": _initial_weights(config, data),
        "start_step": start.step,
        "total_steps": job.total_steps,
        "positions": start.positions,
        "validation_shards": [
            copy.target if copy else _readable(path)
            for path, copy in itertools.zip_longest(data.validation_shards, data.validation_copies)
        ],
    }
    return {
        "train_dir": config.train_dir,
        "plan": plan,
        "checkpoint": start.checkpoint.path if start.checkpoint else None,
        "shards": [*data.train_shards, *data.validation_shards],
        "validation_split_name": config.validation_split_name,
        "meta": {
            "model": model,
            "characters": data.charset.sequence,
            "dataset_name": data.reader.name,
            "charset_digest": data.charset.digest,
            "dataset_digest": data.train.digest,
            "trainable_scopes": config.scopes_to_train,
            "order": _order(config, data),
            "normalization": {key: value for key, value in normalization.items() if key != "statistics"},
        },
    }
