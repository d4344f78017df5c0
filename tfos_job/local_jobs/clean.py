"""`clean`: what is old and needed by nothing, by a policy, in this process. No TensorFlow, no Spark."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tfos_job import lock_file, storage
from tfos_job.cleaning import contents, dataset_survey, plan, registry_needs, removal, submission_survey, survey
from tfos_job.cleaning.needed import needed
from tfos_job.cleaning.plan import DAY_S, Decision, Kind, Policy, Thing
from tfos_job.config import CleanConfig
from tfos_job.errors import BusyError
from tfos_job.layout import RegistryLayout, join, printable
from tfos_job.lease import Lease

_HEAD = ("what", "size", "age", "", "why", "path")
_log = logging.getLogger(__name__)


def clean(config: CleanConfig, now_s: float | None = None) -> dict[str, Any]:
    """Removes, or without `remove` shows, what the policy does not keep and nothing needs.

    Args:
      config: folders and policy.
      now_s: Unix time that ages are counted from (default: now).

    Returns:
      `dry_run`; `num_removable` and `bytes_removable`, what was to go; `num_removed` and `bytes_freed`, what went, 0
      in a dry run; `num_busy`, what would have gone if nobody were at work on it; `items`: of each thing `kind`,
      `path`, `size_bytes`, `changed` (UTC), `age_days`, `decision` (`keep`, `remove`, `removed`), `is_busy`, `reason`.

    Raises:
      BadDataError: documents of the registry or of the dataset are damaged; nothing is removed.
      BusyError: another command is at work on the registry, or has taken a lock over meanwhile.
      MissingInputError: a folder is not there.
      SettingsError: a folder is not of that kind; nothing is removed.
      StorageError: a file system has failed; the next call goes on.
    """
    now_s = time.time() if now_s is None else now_s
    folders = _folders(config)
    decisions = _decided(config, folders, now_s, _holders(folders))  # first without a lock: it may be no such folder
    if not config.remove:
        return _result(decisions, [], now_s, dry_run=True)
    with contextlib.ExitStack() as stack:
        leases, holders = _locked(folders, stack)
        decisions = _decided(config, folders, now_s, holders)
        ended = _remove(decisions, leases)
    return _result(ended.decisions, ended.removed, now_s, dry_run=False)


def raise_if_busy(result: Mapping[str, Any]) -> None:
    """Raises BusyError for a result of `clean` that has removed nothing since others were at work."""
    if not result["dry_run"] and result["num_busy"] and not result["num_removed"]:
        busy = next(item for item in result["items"] if item["is_busy"])
        fact = f"nothing was removed: {busy['reason']}"
        raise BusyError(fact, place=busy["path"], next_step="Run it again when the other command has ended")


def lines(result: Mapping[str, Any]) -> list[str]:
    """A table of all things but logs that stay, of which there are many, and a line with the sum."""
    logs = {kind.value for kind in plan.AGED}
    shown = [item for item in result["items"] if item["decision"] != "keep" or item["kind"] not in logs]
    rows = [_HEAD, *map(_row, shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    table = [
        "  ".join(text.rjust(width) if at in (1, 2) else text.ljust(width) for at, (text, width) in pairs).rstrip()
        for pairs in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
    ]
    if result["dry_run"]:
        end = f"{result['num_removable']} would be removed, {_size(result['bytes_removable'])}; --remove does it"
    else:
        end = f"{result['num_removed']} removed, {_size(result['bytes_freed'])} freed"
    return [*table, end]


# --- folders and their locks -----------------------------------------------------------------------------------------


class _Folder(NamedTuple):
    """A folder that is cleaned, and what reads it."""

    root: str
    read: Callable[[str], list[Thing]]

    @property
    def lock(self) -> str:
        return join(self.root, "_lock")


def _folders(config: CleanConfig) -> list[_Folder]:
    """The folders that are given; the registry first, whose lock keeps what it needs as it is."""
    known: list[tuple[str | None, Callable[[str], list[Thing]]]] = [
        (config.registry_dir, survey.promoted),
        (config.runs_dir, survey.runs),
        (config.export_dir, survey.exported),
        (config.dataset_dir, dataset_survey.not_live),
        (config.hdfs_dir, submission_survey.submitted),
    ]
    return [_Folder(storage.absolute(root).rstrip("/"), read) for root, read in known if root is not None]


def _holders(folders: Sequence[_Folder]) -> dict[str, str]:
    """Who is at work on each folder, as a reader sees it."""
    return {folder.root: lock_file.held_by(folder.lock) for folder in folders}


def _locked(folders: Sequence[_Folder], stack: contextlib.ExitStack) -> tuple[dict[str, Lease], dict[str, str]]:
    """Takes the locks; returns those, and who has the others, by folder. Raises BusyError for that of a registry."""
    leases, holders = {}, {}
    for folder in folders:
        if folder.root in leases or folder.root in holders:
            continue  # two flags name one folder
        lease = Lease(folder.lock, removal.OWNER)
        try:
            leases[folder.root] = stack.enter_context(lease)
        except BusyError:
            if folder.read is survey.promoted:
                raise
            holders[folder.root] = lock_file.name_of(lock_file.holder_of(folder.lock))
    return leases, holders


# --- decisions and removal -------------------------------------------------------------------------------------------


def _decided(
    config: CleanConfig, folders: Sequence[_Folder], now_s: float, holders: Mapping[str, str]
) -> list[Decision]:
    policy = _policy(config)
    promoted: list[Decision] = []
    things: list[Thing] = []
    for folder in folders:
        holder = holders.get(folder.root, "")
        found = [dataclasses.replace(each, holder=holder or each.holder) for each in folder.read(folder.root)]
        if folder.read is survey.promoted:
            must_stay = registry_needs.needed_versions(RegistryLayout(folder.root))
            promoted = plan.decide(found, policy, must_stay, now_s)
        else:
            things += found
    things = _once(things)
    return promoted + plan.decide(
        things, policy, needed(things, registry_needs.entries(promoted), contents.real), now_s
    )


def _once(things: Sequence[Thing]) -> list[Thing]:
    """Each thing once, where two flags name one folder; what is known to one of them is not unknown."""
    known = {thing.path: thing for thing in things if thing.kind is not Kind.OTHER}
    return list({thing.path: known.get(thing.path, thing) for thing in things}.values())


def _policy(config: CleanConfig) -> Policy:
    counts = {
        Kind.RUN: config.keep_runs,
        Kind.EXPORT: config.keep_exports,
        Kind.EXPORTS: config.keep_exports,
        Kind.VERSION: config.keep_versions,
    }
    return Policy(
        keep={kind: count for kind, count in counts.items() if count is not None},
        older_than_s=config.older_than_days * DAY_S,
        unused_s=config.keep_logs_days * DAY_S,
    )


class _Ended(NamedTuple):
    decisions: list[Decision]
    removed: list[str]


def _remove(decisions: Sequence[Decision], leases: Mapping[str, Lease]) -> _Ended:
    """Removes what is to go, the oldest first; what is busy by now, or another thing, stays."""
    changed: dict[str, Decision] = {}
    removed = []
    to_go = [decision for decision in decisions if decision.is_removed]
    for decision in sorted(to_go, key=lambda each: (each.thing.number, each.thing.time_s, each.thing.path)):
        thing = decision.thing
        root = max((each for each in leases if thing.path.startswith(f"{each}/")), key=len)
        lease = leases[root]
        try:
            is_gone = removal.remove(thing, lease.check)
        except BusyError as error:
            lease.check()  # raises if it is this lock that was lost
            changed[thing.path] = Decision(thing, False, error.fact, is_busy=True)
            continue
        if is_gone:
            _log.info("removed %s: %s", thing.path, decision.reason)
            removed.append(thing.path)
        else:
            changed[thing.path] = Decision(thing, False, "has changed meanwhile")
    return _Ended([changed.get(each.thing.path, each) for each in decisions], removed)


# --- the result ------------------------------------------------------------------------------------------------------


def _result(decisions: Sequence[Decision], removed: Sequence[str], now_s: float, *, dry_run: bool) -> dict[str, Any]:
    gone = set(removed)
    removable = [each.thing for each in decisions if each.is_removed]
    freed = [thing for thing in removable if thing.path in gone]
    return {
        "dry_run": dry_run,
        "num_removable": len(removable),
        "bytes_removable": sum(thing.size_bytes for thing in removable),
        "num_removed": len(freed),
        "bytes_freed": sum(thing.size_bytes for thing in freed),
        "num_busy": sum(each.is_busy for each in decisions),
        "items": [_item(each, now_s, is_gone=each.thing.path in gone) for each in decisions],
    }


def _item(decision: Decision, now_s: float, *, is_gone: bool) -> dict[str, Any]:
    thing = decision.thing
    return {
        "kind": thing.kind.value,
        "path": printable(thing.path),
        "size_bytes": thing.size_bytes,
        "changed": datetime.fromtimestamp(thing.time_s, UTC).isoformat(timespec="seconds"),
        "age_days": round(max(0.0, now_s - thing.time_s) / DAY_S, 3),
        "decision": "removed" if is_gone else "remove" if decision.is_removed else "keep",
        "is_busy": decision.is_busy,
        "reason": decision.reason,
    }


def _row(item: Mapping[str, Any]) -> tuple[str, ...]:
    words = (item["kind"], _size(item["size_bytes"]), f"{item['age_days']:.1f} d", item["decision"], item["reason"])
    return tuple(
        "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
        for text in (*words, item["path"])
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
