"""`train`: one run, from its dataset and folder to its last checkpoint and report."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

from tfos_job.config import TrainConfig
from tfos_job.driver import cluster_run, session
from tfos_job.driver.run_report import RunReport
from tfos_job.errors import BusyError, JobError
from tfos_job.host import signals
from tfos_job.layout import RunLayout
from tfos_job.lease import Lease
from tfos_job.protocol.topology import topology_of
from tfos_job.run import folder, resume
from tfos_job.run.preparation import Preparation, done_without_data, prepare, with_absolute_paths

log = logging.getLogger(__name__)


def train(config: TrainConfig, master: str | None) -> dict[str, Any]:
    """Trains until the run is finished.

    Args:
      config: the run.
      master: Spark's master; None if spark-submit has set it.

    Returns:
      The run's report.

    Raises:
      JobError: the cause that stopped it, also in the report.
    """
    config = with_absolute_paths(config)
    session.training_settings(topology_of(config, master), master, config.max_restarts)  # raises if slots are missing
    run = RunLayout(config.train_dir)
    if done := done_without_data(config):
        log.info("%s is finished. Nothing to do", run.root)
        return done
    with folder.lock(run) as lease:
        prepared = prepare(config)  # every check comes before the first change of the run
        previous, start = prepared.folder.report, prepared.start
        finished = prepared.is_finished
        if finished and previous is not None and previous["state"] == folder.FINISHED:
            log.info("%s is finished: step %d of %d. Nothing to do", run.root, start.step, prepared.data.total_steps)
            return dict(previous)
        _say_start(prepared)
        report = RunReport(run, previous, _facts(prepared), held=prepared.folder.clear)
        report.begin(
            number=prepared.folder.next_attempt,
            start_step=start.step,
            checkpoint=start.checkpoint.path if start.checkpoint else None,
            records=start.records,
        )
        with _ending(report, lease):
            if finished:
                log.info("All %d steps of %s are done: only its report was missing", start.step, run.root)
                cluster_run.commit(prepared, report)
            else:
                cluster_run.run(prepared, master, report, lease)
        return report.values


def _say_start(prepared: Preparation) -> None:
    """Logs what is trained and, of a run that is resumed, from which step and with which settings."""
    run = prepared.run
    changes = f" but {resume.listed(prepared.changes)}" if prepared.changes else ""
    if prepared.start.checkpoint is None:
        if prepared.folder.settings is not None:
            log.info("%s has no checkpoint: beginning it with the settings it has%s", run.root, changes)
        log.info("Training %s: %s", run.root, prepared.subject)
        return
    log.info(
        "Resuming %s at step %d of %d: %s, with the run's own settings%s",
        run.root,
        prepared.start.step,
        prepared.data.total_steps,
        prepared.subject,
        changes,
    )


def _facts(prepared: Preparation) -> dict[str, Any]:
    """The entries of the report that are known from the start."""
    config, data = prepared.config, prepared.data
    return {
        "model": dataclasses.asdict(data.model),
        "num_records": data.train.manifest.num_records,
        "total_steps": data.total_steps,
        "batch_size": config.batch_size,
        "push_every": config.push_every,
        "replicas": config.replicas_of_step,
        "input_mode": data.input_mode,
        "records_per_worker": list(data.part_sizes),
        "num_workers": config.num_workers,
        "num_ps_tasks": config.num_ps_tasks,
        "wire_dtype": config.wire_dtype,
        "ps_placement": config.ps_placement,
        "link_gbit": config.link_gbit,
        "dataset_digest": data.train.manifest.digest,
        "charset_digest": data.charset.digest,
    }


@contextlib.contextmanager
def _ending(report: RunReport, lease: Lease) -> Iterator[None]:
    """Writes the end of the `with` block into the report; a failure to write it hides no other error."""
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
            report.abandon()
            if error is None:
                raise
            log.warning("The report could not be written: %s", e)


def _is_ours(report: RunReport, lease: Lease) -> bool:
    """True if this process holds the lock, or lost it and no other command has begun since."""
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
