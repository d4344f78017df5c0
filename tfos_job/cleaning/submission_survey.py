"""What `submit` leaves in its folder on HDFS: archives that travel with jobs, outcomes, and Spark's event logs."""

from __future__ import annotations

from typing import Any

from tfos_job import storage
from tfos_job.cleaning import contents, names
from tfos_job.cleaning.plan import Kind, Thing
from tfos_job.cleaning.survey import is_odd, leftover, require_known, unknown
from tfos_job.config.defaults import EVENTS, OUTCOMES, SUBMISSIONS
from tfos_job.errors import MissingInputError
from tfos_job.layout import printable


def submitted(root: str) -> list[Thing]:
    """The things in the folder.

    Raises:
      MissingInputError: there is no such folder.
      SettingsError: it has none of them, and something else.
    """
    place = f"--hdfs_dir {root}"
    if not storage.is_dir(root):
        raise MissingInputError("no such folder", place=place, next_step="Look at --hdfs_dir")
    found, has_folder = [], False
    for entry in storage.list_dir(root):
        if entry.name in (OUTCOMES, EVENTS) and entry.is_dir and not is_odd(entry):
            has_folder = True
            judge = _outcome if entry.name == OUTCOMES else _event_log
            found += [judge(child) or leftover(child) or unknown(child) for child in storage.list_dir(entry.path)]
        elif entry.name == SUBMISSIONS and entry.is_dir:
            has_folder = True  # what is known of run ids, of which nothing goes
        elif entry.name != "_lock" and not (entry.name.startswith("_") and not entry.is_dir):
            found.append(_archive(entry) or leftover(entry) or unknown(entry))
    require_known(found, place, "archive of `submit`, outcome or event log", has_own=has_folder)
    return found


def _archive(entry: storage.Entry) -> Thing | None:
    kind = names.archive_kind(entry.name)
    return None if not kind or entry.is_dir or is_odd(entry) else _file(entry, Kind.ARCHIVE, group=kind)


def _outcome(entry: storage.Entry) -> Thing | None:
    if entry.is_dir or is_odd(entry) or not names.is_outcome(entry.name):
        return None
    try:
        outcome = storage.read_json(entry.path)
    except (MissingInputError, ValueError):
        outcome = None
    return _file(entry, Kind.OUTCOME, is_finished=isinstance(outcome, dict) and outcome.get("exit_code") is not None)


def _event_log(entry: storage.Entry) -> Thing | None:
    if is_odd(entry) or not names.is_event_log(entry.name, is_dir=entry.is_dir):
        return None
    if not entry.is_dir:
        return _file(entry, Kind.EVENT_LOG)
    inside = contents.read(entry.path)
    stranger = inside.odd or names.stranger_in_event_log(inside.paths)
    return Thing(
        kind=Kind.EVENT_LOG,
        path=entry.path,
        size_bytes=inside.size_bytes,
        time_s=max(entry.mtime_s, inside.time_s),
        obstacle=f"in it is what Spark does not write: {printable(stranger)}" if stranger else "",
    )


def _file(entry: storage.Entry, kind: Kind, **fields: Any) -> Thing:
    return Thing(kind=kind, path=entry.path, size_bytes=entry.size_bytes, time_s=entry.mtime_s, **fields)
