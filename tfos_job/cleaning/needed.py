"""What the versions of a registry need of other folders: the export, the checkpoint and the run that they came from.

Pure. Paths are compared without file system and host, since one folder may be written as `hdfs:///runs/a` and as
`hdfs://host:8020/runs/a`: rather too much stays than too little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tfos_job.cleaning.plan import Thing
from tfos_job.run.promotion_entry import PromotionEntry

_FILE_SYSTEM = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:(?://[^/]*)?")


def needed(
    things: Iterable[Thing], entries: Iterable[PromotionEntry], real: Callable[[str], str] = str
) -> dict[str, str]:
    """The things that entries of a registry name, by path or by digest: each path with the reason in words.

    Args:
      things: of all folders.
      entries: of the versions that stay.
      real: makes one path of those that lead to the same place by links.
    """
    entries = sorted(entries, key=lambda entry: entry.version or 0, reverse=True)
    named = [(entry, [_bare(real(path)) for path in _paths(entry)], _digests(entry)) for entry in entries]
    found = {}
    for thing in things:
        place = _bare(real(thing.path))
        for entry, paths, digests in named:
            if any(f"{path}/".startswith(f"{place}/") for path in paths) or thing.digests & digests:
                found[thing.path] = f"version {entry.version} of the registry was made from it"
                break
    return found


def _paths(entry: PromotionEntry) -> list[str]:
    train: Any = entry.flags.get("train")
    run = train.get("train_dir") if isinstance(train, Mapping) else None
    paths = [entry.source.get("path"), entry.source.get("checkpoint"), run]
    return [path for path in paths if isinstance(path, str) and path]


def _digests(entry: PromotionEntry) -> set[str]:
    values = [entry.model.digest, entry.source.get("document_sha256"), entry.source.get("checkpoint_digest")]
    return {value for value in values if isinstance(value, str)}


def _bare(path: str) -> str:
    return "/" + _FILE_SYSTEM.sub("", path).strip("/")
