"""What in a dataset is not live: old generations, what killed conversions have left, quarantines of sources that went.

Adopted shards, manifests, live shards and live quarantines are never among it (`conversion/sweep.py`).
"""

from __future__ import annotations

import re

from tfos_job import storage
from tfos_job.cleaning import contents, names
from tfos_job.cleaning.plan import Kind, Thing
from tfos_job.cleaning.survey import is_odd, unknown
from tfos_job.conversion import sweep
from tfos_job.errors import MissingInputError, SettingsError
from tfos_job.formats import manifest as manifests
from tfos_job.layout import BUILDING_PREFIX, GENERATION_PREFIX, QUARANTINE, DatasetLayout, SplitLayout, printable

_SHARD = re.compile(r"part-[\w.-]+", re.ASCII)
_OF_A_SPLIT = (BUILDING_PREFIX, GENERATION_PREFIX, QUARANTINE)


def not_live(root: str) -> list[Thing]:
    """What may go of a dataset, and what lies among it that no conversion has made.

    Raises:
      BadDataError: a manifest is damaged, so that nobody knows what is live.
      MissingInputError: there is no such folder.
      SettingsError: it is no dataset.
    """
    dataset, place = DatasetLayout(root), f"--dataset_dir {root}"
    if not storage.is_dir(root):
        raise MissingInputError("no such folder", place=place, next_step="Look at --dataset_dir")
    try:
        manifests.load_charset(dataset)
    except MissingInputError as error:
        next_step = "Give the folder that has the splits in it"
        raise SettingsError("is no dataset: it has no charset.json", place=place, next_step=next_step) from error
    found = [_thing(entry) for entry in sweep.left_beside(dataset)]
    for entry in storage.list_dir(root):
        split = dataset.split(entry.name)
        if is_odd(entry) or not entry.is_dir or not _is_split(split):
            continue
        live = manifests.load(split) if storage.exists(split.manifest) else None
        found += [_thing(each) for each in sweep.not_live(split, live)]
    return found


def _is_split(split: SplitLayout) -> bool:
    """Whether a folder has a manifest, or nothing in it but what a killed conversion leaves."""
    there = storage.list_dir(split.root)
    is_left = all(entry.name.startswith(_OF_A_SPLIT) or names.is_unfinished(entry.name) for entry in there)
    return storage.exists(split.manifest) or (bool(there) and is_left)


def _thing(entry: storage.Entry) -> Thing:
    if is_odd(entry):
        return unknown(entry)
    inside = contents.read(entry.path) if entry.is_dir else None
    return Thing(
        kind=Kind.LEFTOVER,
        path=entry.path,
        size_bytes=entry.size_bytes if inside is None else inside.size_bytes,
        time_s=max(entry.mtime_s, 0.0 if inside is None else inside.time_s),
        obstacle=_obstacle(entry, inside),
    )


def _obstacle(entry: storage.Entry, inside: contents.Contents | None) -> str:
    """Why something that is not live stays, too; empty if nothing is in the way."""
    if inside is not None and inside.odd:
        return f"in it {inside.odd}"
    if entry.name == QUARANTINE or f"/{QUARANTINE}/" in entry.path or names.is_unfinished(entry.name):
        return ""
    if inside is None:
        return "" if _SHARD.fullmatch(entry.name) or entry.name.startswith("_") else "not known"
    if entry.name.startswith(BUILDING_PREFIX):
        return ""
    stranger = next((name for name in inside.paths if not _SHARD.fullmatch(name) and not names.is_unfinished(name)), "")
    return f"in it is what no command makes: {printable(stranger)}" if stranger else ""
