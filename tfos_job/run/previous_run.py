"""The run that a run is compared with: the newest finished one beside it, of the same dataset."""

from __future__ import annotations

import logging
from typing import Any

from tfos_job import storage
from tfos_job.errors import JobError
from tfos_job.layout import RunLayout
from tfos_job.run import summary
from tfos_job.run.folder import FINISHED
from tfos_job.run.summary import RunSummary

_MOST_S = 30.0  # of searching: a page without a comparison is better than none

_log = logging.getLogger(__name__)


def find(run: RunSummary) -> RunSummary | None:
    """Finds the run before this one among the folders beside it, as a job that trains into a new folder leaves them.

    It has finished, on the same `dataset_dir`, before this one did. Of several the newest counts, by the time at which
    its report was written. None if there is no such run; a folder that cannot be read is none.
    """
    dataset = _dataset(run.settings)
    if dataset is None:
        return None
    try:
        with storage.within(_MOST_S):
            for path in _newest_first(run):
                report = _json(RunLayout(path).report)
                ended = RunSummary(place=path, report=report).ended
                if report.get("state") != FINISHED or not ended or (run.ended and ended > run.ended):
                    continue
                if _dataset(_json(RunLayout(path).config)) == dataset:
                    return summary.read(path, report)
    except JobError as error:
        _log.warning("No run to compare with: %s", error)
    return None


def _newest_first(run: RunSummary) -> list[str]:
    """The folders beside the run's that have a report, the one that was written last first."""
    parent, slash, name = run.place.rstrip("/").rpartition("/")
    found = []
    for entry in storage.list_dir(f"{parent}{slash}"):
        if not entry.is_dir or entry.name == name:
            continue
        try:
            found.append((storage.stat(RunLayout(entry.path).report).mtime_s, entry.path))
        except JobError:
            continue
    return [path for _, path in sorted(found, reverse=True)]


def _json(path: str) -> dict[str, Any]:
    try:
        return dict(storage.read_json(path))
    except (JobError, ValueError, TypeError):
        return {}


def _dataset(settings: Any) -> str | None:
    folder = settings.get("dataset_dir")
    return storage.absolute(folder).rstrip("/") if isinstance(folder, str) and folder else None
