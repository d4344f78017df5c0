"""Names of what commands make, so that nothing else is ever removed. Pure.

A folder goes as a whole only if each path below it is one that a command of this package makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOKEN = r"[0-9a-f]{32}"
_UNFINISHED = re.compile(rf"_.+\.{_TOKEN}\.tmp|_lock\.{_TOKEN}\.stale")
_RUN = re.compile(
    r"(?:config\.json|report\.json|loss\.png|statistics\.npz|_lock"
    r"|attempts(?:/\d+\.json)?"
    r"|checkpoints(?:/(?:step-\d+|_building-[^/]+|_damaged-step-\d+-[^/]+)(?:/(?:variables\.npz|checkpoint\.json))?)?"
    r"|summaries(?:/(?:train|validation)(?:/events\.out\.tfevents\.[^/]+)?)?"
    r"|evaluation(?:/(?:_building-)?step-\d+-[^/]+(?:/[^/]+\.(?:png|csv|json))?)?"
    r"|_scratch(?:/.+)?)",
    re.ASCII,
)
_ARCHIVES = {
    "environment": re.compile(r"environment-[0-9a-f]{12}\.tar\.gz"),
    "Spark's jars": re.compile(r"spark-[\w.+]+-jars-[0-9a-f]{12}\.zip", re.ASCII),
    "package": re.compile(r"tfos_job-[0-9a-f]{12}\.zip"),
}
_APPLICATION = r"(?:application_\d+_\d+(?:_\d+)?|local-\d+|spark-[0-9a-f]{32})"
_OUTCOME = re.compile(r"application_\d+_\d+\.json", re.ASCII)
_EVENT_FILE = re.compile(rf"{_APPLICATION}(?:\.(?:zstd|lz4|lzf|snappy))?(?:\.inprogress)?(?:\.compact)?", re.ASCII)
_EVENT_DIR = re.compile(rf"eventlog_v2_{_APPLICATION}", re.ASCII)
_IN_EVENT_DIR = re.compile(r"\.?(?:events_\d+_|appstatus_)[\w.-]+", re.ASCII)


def is_unfinished(name: str) -> bool:
    """True for the temporary name of a file, or of a folder that is being removed (`storage.discard_dir`)."""
    return _UNFINISHED.fullmatch(name) is not None


def stranger_in_run(paths: Iterable[str]) -> str:
    """The first path below a run's folder that no command has made; empty if there is none."""
    return next((path for path in paths if not _RUN.fullmatch(path) and not _is_in_unfinished(path)), "")


def stranger_among(paths: Iterable[str], known: Iterable[str]) -> str:
    """The first path that is neither one of the known ones nor a folder above one; empty if there is none."""
    allowed = set()
    for path in known:
        while path:
            allowed.add(path)
            path = path.rpartition("/")[0]
    return next((path for path in paths if path not in allowed and not _is_in_unfinished(path)), "")


def _is_in_unfinished(path: str) -> bool:
    return any(is_unfinished(name) for name in path.split("/"))


def archive_kind(name: str) -> str:
    """Which of the archives that travel with a job has this name; empty for any other file."""
    return next((kind for kind, form in _ARCHIVES.items() if form.fullmatch(name)), "")


def is_outcome(name: str) -> bool:
    return _OUTCOME.fullmatch(name) is not None


def is_event_log(name: str, *, is_dir: bool) -> bool:
    return (_EVENT_DIR if is_dir else _EVENT_FILE).fullmatch(name) is not None


def stranger_in_event_log(paths: Iterable[str]) -> str:
    return next((path for path in paths if not _IN_EVENT_DIR.fullmatch(path)), "")
