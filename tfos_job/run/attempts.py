"""attempts/NNN.json: a file for each attempt at a training, with its settings, and from its end on with its account.

An attempt is the first one of a command, or follows in the same command after the failure of the one before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job import __version__, storage
from tfos_job.config import TrainConfig, to_dict
from tfos_job.layout import RunLayout
from tfos_job.run.resume import Change

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class AttemptFile:
    """The file of one attempt: its path, and its content at the attempt's beginning."""

    path: str
    values: Mapping[str, Any]


def begin(
    run: RunLayout, number: int, config: TrainConfig, changes: Sequence[Change], dataset_digest: str
) -> AttemptFile:
    """Writes the file of a command's first attempt.

    Args:
      run: whose attempt it is.
      number: of the attempt.
      config: its settings.
      changes: settings that differ from those of the attempt before.
      dataset_digest: of the training split.
    """
    storage.make_dirs(run.attempts_dir)
    file = AttemptFile(
        path=run.attempt(number),
        values={
            "format_version": FORMAT_VERSION,
            "attempt": number,
            "package_version": __version__,
            "dataset_digest": dataset_digest,
            "settings": to_dict(config),
            "changes": [dataclasses.asdict(change) for change in changes],
        },
    )
    storage.write_json(file.path, file.values)
    return file


def restart(run: RunLayout, number: int, before: AttemptFile) -> AttemptFile:
    """The file of an attempt that goes on with the settings of the one before; it is not written yet."""
    return AttemptFile(path=run.attempt(number), values={**before.values, "attempt": number, "changes": []})


def end(file: AttemptFile, account: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the file once the attempt has ended: its `account` of `attempt_account`, beside its settings."""
    return {**account, **file.values}


def attempts_of(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The attempts in a report, the first one first."""
    return [attempt for attempt in report.get("attempts") or [] if isinstance(attempt, Mapping)]


def next_number(run: RunLayout, report: Mapping[str, Any] | None) -> int:
    """The number of the run's next attempt: one that failed before its file was written is in the report alone."""
    told = [attempt.get("number") or 0 for attempt in attempts_of(report or {})]
    return max(_last_number(run), len(told), *told, 0) + 1


def committed_digest(run: RunLayout) -> str | None:
    """The digest of the last attempt's training split; None if no attempt has one."""
    number = _last_number(run)
    try:
        found = storage.read_json(run.attempt(number)) if number else {}
    except ValueError:
        return None
    return found.get("dataset_digest")


def _last_number(run: RunLayout) -> int:
    if not storage.is_dir(run.attempts_dir):
        return 0
    stems = (entry.name.partition(".")[0] for entry in storage.list_dir(run.attempts_dir))
    return max((int(stem) for stem in stems if stem.isdigit()), default=0)
