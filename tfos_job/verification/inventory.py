"""The contents of a dataset's folder: its manifests and charset, names of files, and whether a job is at work on it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from tfos_job import lock_file, storage
from tfos_job.errors import BadDataError, BusyError, MissingInputError
from tfos_job.formats import manifest as manifests
from tfos_job.formats.charset import Charset
from tfos_job.formats.leftovers import is_lockless, may_be_at_work
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import BUILDING_PREFIX, GENERATION_PREFIX, DatasetLayout, join
from tfos_job.verification.consistency import add_unfinished
from tfos_job.verification.findings import Findings

ALL = "all"


def is_at_work(dataset: DatasetLayout) -> bool:
    """True if a job holds the dataset's lock."""
    return not lock_file.is_abandoned(dataset.lock)


def require_unchanged(dataset: DatasetLayout, chosen: Mapping[str, Manifest]) -> None:
    """Raises BusyError if another job has published since: findings may be due to replaced shards."""
    for name, manifest in chosen.items():
        split = dataset.split(name)
        with contextlib.suppress(BadDataError, MissingInputError):
            if manifests.load(split).shards != manifest.shards:
                fact = "another job has published a generation while this one was read"
                raise BusyError(fact, place=split.root, next_step="Run `verify` again when it has ended")


def load_charset(dataset: DatasetLayout, findings: Findings) -> Charset | None:
    try:
        return manifests.load_charset(dataset)
    except BadDataError as error:
        findings.add("charset", "charset.json", error.fact)
    except MissingInputError:
        findings.add("charset", "charset.json", "missing: the classes of the splits have no characters")
    return None


def load_manifests(dataset: DatasetLayout, split_name: str, findings: Findings) -> dict[str, Manifest]:
    """The manifests of all splits that have a sound one, by name; at least one of those that `split_name` asks for.

    Raises:
      MissingInputError: none is.
      BusyError: none is yet.
    """
    if not storage.is_dir(dataset.root):
        manifests.load_charset(dataset)  # raises
    found: dict[str, Manifest] = {}
    damaged = False
    in_progress = ""
    at_work = is_at_work(dataset)
    for entry in storage.list_dir(dataset.root):
        split = dataset.split(entry.name)
        if not entry.is_dir:
            if entry.name.endswith(".tmp"):
                is_new = is_lockless(entry.name) and may_be_at_work(entry, time.time())
                add_unfinished(findings, entry.name, at_work=is_new or at_work or is_at_work(dataset))
            continue
        try:
            found[entry.name] = manifests.load(split)
        except BadDataError as error:
            damaged = damaged or split_name in (ALL, entry.name)
            findings.add("manifest", join(entry.name, "manifest.json"), error.fact)
        except MissingInputError:
            made = _made_in(split.root)
            if made and split_name in (ALL, entry.name) and (at_work or is_at_work(dataset)):
                in_progress = entry.name
                add_unfinished(findings, entry.name, at_work=True)
            elif made and split_name in (ALL, entry.name):
                findings.add("missing_manifest", entry.name, f"no manifest names what is in it, such as {made[0]}")
                damaged = True
    is_there = bool(found) if split_name == ALL else split_name in found
    if in_progress and not is_there:
        fact = "nothing of it is published yet: a job that is at work makes it"
        raise BusyError(fact, place=dataset.split(in_progress).root, next_step="Run `verify` again when it has ended")
    if not damaged and not is_there:
        manifests.load(dataset.split("train" if split_name == ALL else split_name))  # raises what is missing
    return found


def _made_in(folder: str) -> list[str]:
    """The generations in a folder. Others are not looked into: beside adopted shards may lie what they are made of."""
    with contextlib.suppress(MissingInputError):  # removed by a running job
        names = [f"{entry.name}{'/' * entry.is_dir}" for entry in storage.list_dir(folder)]
        return [name for name in names if name.startswith((GENERATION_PREFIX, BUILDING_PREFIX))]
    return []


def names_below(folder: str, prefix: str = "") -> Iterator[str]:
    """The paths of all below a folder but for what is being built; those of folders end with `/`."""
    try:
        entries = storage.list_dir(folder)
    except MissingInputError:  # renamed or removed by a running job
        return
    for entry in entries:
        if entry.is_dir:
            yield f"{prefix}{entry.name}/"
            if not entry.name.startswith(BUILDING_PREFIX):
                yield from names_below(entry.path, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name
