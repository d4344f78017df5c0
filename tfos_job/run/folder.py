"""A run's folder: its contents, read before anything is decided, and the commitment of a run to its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job import storage
from tfos_job.config import TrainConfig, to_dict
from tfos_job.host import container
from tfos_job.layout import RunLayout
from tfos_job.lease import Lease
from tfos_job.lock_file import TTL_S
from tfos_job.run import attempts, checkpoints, resume, retention
from tfos_job.run.attempts import AttemptFile
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.run.resume import Change

RUNNING, FINISHED, FAILED, INTERRUPTED = "running", "finished", "failed", "interrupted"
"""The states of a report (`driver/run_report.py`) and of its attempts."""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run's folder as a command finds it. With `clear` it counts as empty: all of the run in it is removed.

    Attributes:
      run: where it is.
      clear: `--overwrite`, except in a second attempt of the YARN application that has done so.
      is_next_attempt: an earlier attempt of the same YARN application has worked on the run.
      report: the run's; None without one.
      settings: the run's; None without any.
      checkpoints: folders that bear a checkpoint's name, newest first, verified or not.
      committed_digest: of the split that the last attempt was committed to; None where no attempt says so.
      next_attempt: the number of the attempt that would begin now.
    """

    run: RunLayout
    clear: bool
    is_next_attempt: bool
    report: Mapping[str, Any] | None
    settings: TrainConfig | None
    checkpoints: Sequence[str]
    committed_digest: str | None
    next_attempt: int

    @property
    def has_begun(self) -> bool:
        return bool(self.checkpoints)


def lock(run: RunLayout) -> Lease:
    """The run's lock, for who changes the run.

    YARN starts an attempt after the end of the one before, whose lock, written on another host, may still look held.
    """
    return Lease(run.lock, "tfos-job train", wait_s=2 * TTL_S if container.attempt_number() > 1 else 0.0)


def read(run: RunLayout, *, overwrite: bool) -> RunFolder:
    """Reads the run's folder, except the checkpoints themselves.

    Raises:
      BadDataError: its settings are damaged.
      SettingsError: its settings are of another version.
    """
    report = storage.read_json(run.report) if storage.exists(run.report) else None
    application = container.application_id()
    is_next_attempt = bool(report and application and report.get("application") == application)
    clear = overwrite and not is_next_attempt
    return RunFolder(
        run=run,
        clear=clear,
        is_next_attempt=is_next_attempt,
        report=None if clear else report,
        settings=None if clear else resume.read(run),
        checkpoints=() if clear else checkpoints.candidates(run),
        committed_digest=None if clear else attempts.committed_digest(run),
        next_attempt=1 if clear else attempts.next_number(run, report),
    )


def is_done(report: Mapping[str, Any], config: TrainConfig) -> bool:
    """True if a run of this report is finished, and no more steps are asked for."""
    return report["state"] == FINISHED and report["step"] >= config.total_steps(report["num_records"])


def commit(folder: RunFolder, config: TrainConfig, *, changes: Sequence[Change], dataset_digest: str) -> AttemptFile:
    """Commits the run to its settings: the first change of its folder.

    Args:
      folder: as it was found; with `clear` the run in it is removed first.
      config: the run's settings from now on.
      changes: settings that differ from the run's.
      dataset_digest: of the training split.

    Returns:
      The file of the attempt.
    """
    run = folder.run
    if folder.clear:
        _clear(run)
    retention.sweep(run)
    storage.remove(run.scratch_dir)
    kept = resume.with_origin(config, folder.settings) if folder.has_begun else config
    storage.write_json(run.config, to_dict(kept))
    return attempts.begin(run, folder.next_attempt, config, changes, dataset_digest)


def _clear(run: RunLayout) -> None:
    """`--overwrite`: removes what a run makes, and nothing else that may lie in the folder."""
    for path in made_by(run):
        storage.remove(path)


def made_by(run: RunLayout) -> tuple[str, ...]:
    """The files and folders that a run makes, but for temporary ones; its settings last.

    If their removal is interrupted, the remaining files are still recognised as a run's.
    """
    return (
        run.checkpoints_dir,
        run.summaries("train"),
        run.summaries("validation"),
        run.evaluation_dir,
        run.loss_png,
        run.statistics,
        run.report,
        run.attempts_dir,
        run.config,
    )


def adopt(run: RunLayout, info: CheckpointInfo | None) -> CheckpointInfo | None:
    """Copies a checkpoint from elsewhere into the run, so that the run can resume before its first own checkpoint."""
    if info is None or info.path == run.checkpoint(info.step):
        return info
    return checkpoints.verify(checkpoints.publish(run, info.step, checkpoints.load(info), info.meta))
