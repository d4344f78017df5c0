"""The folders that are cleaned, read: each thing in them, with what it is recognised by. Changes nothing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from tfos_job import lock_file, storage
from tfos_job.cleaning import contents, names
from tfos_job.cleaning.contents import Contents
from tfos_job.cleaning.plan import Kind, Thing
from tfos_job.errors import BadDataError, JobError, MissingInputError, SettingsError
from tfos_job.formats.leftovers import is_lockless, may_be_at_work
from tfos_job.layout import (
    BUILDING_PREFIX,
    EXPORT_DOCUMENT,
    PROMOTION_DOCUMENT,
    ExportLayout,
    RegistryLayout,
    RunLayout,
    checkpoint_step,
    export_version,
    join,
    printable,
)
from tfos_job.run import exports
from tfos_job.run.checkpoint_files import DOCUMENT_FILE
from tfos_job.run.folder import FINISHED

Recognise = Callable[[storage.Entry], Thing | None]
_RUN_FLAGS = {"dataset_dir", "dataset_split_name"}


def runs(root: str) -> list[Thing]:
    """The runs in a folder.

    Raises:
      MissingInputError: there is no such folder.
      SettingsError: it has no run, and something else.
    """
    return _things(root, "--runs_dir", "run", _run, building="")


def exported(root: str) -> list[Thing]:
    """The exported versions in a folder, or folders of such; raises as `runs` does."""
    if storage.is_dir(RegistryLayout(root).history_dir):
        raise SettingsError(
            "is a registry of promoted models",
            place=f"--export_dir {root}",
            next_step="Give it as --registry_dir, with --keep_versions",
        )
    return _things(root, "--export_dir", "exported version", lambda entry: _version(entry) or _exports(entry))


def promoted(root: str) -> list[Thing]:
    """The versions of a registry; raises as `runs` does."""
    if not storage.is_dir(RegistryLayout(root).history_dir) and storage.is_dir(root):
        raise SettingsError(
            "is no registry: it has no history", place=f"--registry_dir {root}", next_step="Look at --registry_dir"
        )
    registry = RegistryLayout(root)
    own = (registry.current, registry.history_dir)
    return _things(root, "--registry_dir", "promoted version", lambda entry: _version(entry, is_promoted=True), own=own)


# --- a folder --------------------------------------------------------------------------------------------------------


def _things(
    root: str, flag: str, what: str, recognise: Recognise, *, own: Sequence[str] = (), building: str = BUILDING_PREFIX
) -> list[Thing]:
    if not storage.is_dir(root):
        raise MissingInputError("no such folder", place=f"{flag} {root}", next_step=f"Look at {flag}")
    found = []
    for entry in storage.list_dir(root):
        if entry.name == "_lock" or entry.path in own:
            continue
        thing = leftover(entry, building) or (None if is_odd(entry) else recognise(entry))
        if thing is not None:
            found.append(thing)
        elif not is_lockless(entry.name):
            found.append(unknown(entry))
    require_known(found, f"{flag} {root}", what, has_own=bool(own))
    return found


def require_known(things: Sequence[Thing], place: str, what: str, *, has_own: bool = False) -> None:
    """Raises SettingsError for a folder of which nothing is known: it was given by mistake."""
    strangers = [thing for thing in things if thing.kind is Kind.OTHER]
    if strangers and len(strangers) == len(things) and not has_own:
        name = printable(strangers[0].path.rpartition("/")[2])
        raise SettingsError(
            f"has no {what} in it, and something else, such as {name}",
            place=place,
            next_step="Give the folder that they lie in",
        )


def is_odd(entry: storage.Entry) -> bool:
    """True for a link, a FIFO and the like."""
    return bool(entry.special) or contents.is_link(entry.path)


def leftover(entry: storage.Entry, prefix: str = "") -> Thing | None:
    """What a killed command has left under a temporary name, or one with this prefix; None for anything else."""
    if is_odd(entry):
        return None
    is_begun = bool(prefix) and entry.name.startswith(prefix)
    if entry.is_dir and (is_begun or names.is_unfinished(entry.name)):
        inside = contents.read(entry.path)
        return Thing(kind=Kind.LEFTOVER, path=entry.path, size_bytes=inside.size_bytes, time_s=entry.mtime_s)
    if not entry.is_dir and is_lockless(entry.name) and not may_be_at_work(entry, time.time()):
        return Thing(kind=Kind.LEFTOVER, path=entry.path, size_bytes=entry.size_bytes, time_s=entry.mtime_s)
    return None


def unknown(entry: storage.Entry) -> Thing:
    """What stays since no command has made it. Its size is not looked for."""
    why = entry.special or ("a link, which is not followed" if contents.is_link(entry.path) else "not known")
    size_bytes = 0 if entry.is_dir else entry.size_bytes
    return Thing(kind=Kind.OTHER, path=entry.path, size_bytes=size_bytes, time_s=entry.mtime_s, obstacle=why)


def is_same(thing: Thing) -> bool:
    """Whether a thing is still what it was when it was read, but for its lock; for who holds that."""
    try:
        entry = storage.stat(thing.path)
    except MissingInputError:
        return False
    if is_odd(entry):
        return False
    if thing.kind in (Kind.RUN, Kind.EXPORTS):
        now = (_run if thing.kind is Kind.RUN else _exports)(entry)
        return now is not None and dataclasses.replace(now, holder=thing.holder) == thing
    return entry.is_dir or (entry.size_bytes, entry.mtime_s) == (thing.size_bytes, thing.time_s)


# --- things ----------------------------------------------------------------------------------------------------------


def _run(entry: storage.Entry) -> Thing | None:
    run = RunLayout(entry.path)
    settings = _json(run.config) if entry.is_dir else None
    if not isinstance(settings, dict) or not settings.keys() >= _RUN_FLAGS:
        return None
    report, inside = _json(run.report), contents.read(run.root)
    steps = [path for path in inside.paths if path.endswith(f"/{DOCUMENT_FILE}")]
    documents = [_json(join(run.root, path)) for path in steps if checkpoint_step(path.split("/")[1]) is not None]
    digests = [document.get("document_sha256") for document in documents if isinstance(document, dict)]
    return Thing(
        kind=Kind.RUN,
        path=run.root,
        size_bytes=inside.size_bytes,
        time_s=inside.time_s,
        group=run.root.rpartition("/")[0],
        is_finished=isinstance(report, dict) and report.get("state") == FINISHED,
        digests=frozenset(digest for digest in digests if isinstance(digest, str)),
        obstacle=_obstacle(inside, names.stranger_in_run(inside.paths)),
        holder=lock_file.held_by(run.lock),
    )


def _version(entry: storage.Entry, *, is_promoted: bool = False) -> Thing | None:
    """An exported or promoted version. Its number is its folder's; the lock is that of the folder above."""
    number = export_version(entry.name)
    if not entry.is_dir or number is None or not storage.exists(join(entry.path, EXPORT_DOCUMENT)):
        return None
    inside = contents.read(entry.path)
    digests, obstacle = _judged(entry.path, inside, is_promoted=is_promoted)
    return Thing(
        kind=Kind.VERSION if is_promoted else Kind.EXPORT,
        path=entry.path,
        size_bytes=inside.size_bytes,
        time_s=inside.time_s,
        group=entry.path.rpartition("/")[0],
        number=number,
        digests=digests,
        obstacle=obstacle,
    )


def _judged(folder: str, inside: Contents, *, is_promoted: bool) -> tuple[frozenset[str], str]:
    """Digests of a version, and why it must stay: it is damaged, or holds something else than its document names."""
    try:
        info = exports.read(folder)
    except JobError as error:
        return frozenset(), f"damaged: {error.fact}"
    known = [*info.document["files"], EXPORT_DOCUMENT, *([PROMOTION_DOCUMENT] if is_promoted else [])]
    if is_promoted and PROMOTION_DOCUMENT not in inside.paths:
        return frozenset(), "no promotion has published it"
    digests = frozenset({info.digest, str(info.document["document_sha256"])})
    return digests, _obstacle(inside, names.stranger_among(inside.paths, known))


def _exports(entry: storage.Entry) -> Thing | None:
    """A folder of exported versions and nothing else, such as those of one run."""
    if not entry.is_dir or storage.is_dir(RegistryLayout(entry.path).history_dir):
        return None
    export = ExportLayout(entry.path)
    there = storage.list_dir(export.root)
    versions = [thing for child in there if not is_odd(child) and (thing := _version(child)) is not None]
    if not versions:
        return None
    inside = contents.read(export.root)
    recognised = {thing.path for thing in versions} | {export.lock}
    others = [child for child in there if child.path not in recognised and not leftover(child, BUILDING_PREFIX)]
    stranger = next((child.name for child in others if not names.is_unfinished(child.name)), "")
    obstacle = next((thing.obstacle for thing in versions if thing.obstacle), "")
    return Thing(
        kind=Kind.EXPORTS,
        path=export.root,
        size_bytes=inside.size_bytes,
        time_s=inside.time_s,
        group=export.root.rpartition("/")[0],
        digests=frozenset().union(*(thing.digests for thing in versions)),
        obstacle=obstacle or _obstacle(inside, stranger),
        holder=lock_file.held_by(export.lock),
    )


def _obstacle(inside: Contents, stranger: str) -> str:
    if inside.odd:
        return f"in it {inside.odd}"
    return f"in it is what no command makes: {printable(stranger)}" if stranger else ""


def _json(path: str) -> Any:
    """The value in a JSON file; None for a missing or damaged one."""
    try:
        return storage.read_json(path)
    except (MissingInputError, BadDataError, ValueError):
        return None
