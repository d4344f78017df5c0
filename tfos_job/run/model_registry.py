"""A registry of promoted networks: the current one, those before, and how another one takes its place.

Servers take the highest number in the folder, so the rename by which a version gets its number *is* the promotion. The
version has its entry of the history within. What follows is written from that: the entry in `history`, then `current`,
each whole. Whoever is killed between leaves the new model promoted and `current` behind it, and the next command, under
the registry's lock, writes what is missing (`recover`). Before the rename there is nothing but a folder that servers do
not look at, and predictions that no entry names; the next command removes both.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from tfos_job import storage
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.layout import PROMOTION_DOCUMENT, RegistryLayout, export_version, join
from tfos_job.run import exports, kept_predictions, promotion_entry
from tfos_job.run.exports import ExportInfo
from tfos_job.run.kept_predictions import KeptPredictions
from tfos_job.run.promotion_entry import KEPT, PredictionsFile, PromotionEntry

_log = logging.getLogger(__name__)


class Standing(NamedTuple):
    """What a registry has.

    Attributes:
      newest: the entry of the highest version, which servers take; None if there is none.
      finished: whether a command was ended after its promotion, and what it had left was written now.
    """

    newest: PromotionEntry | None
    finished: bool = False


# --- reading ---------------------------------------------------------------------------------------------------------


def newest(registry: RegistryLayout) -> tuple[PromotionEntry, bytes] | None:
    """The entry of the version that servers take, with its bytes; None if there is none. Changes nothing.

    Raises:
      BadDataError: it is damaged.
      SettingsError: the highest number is of a folder that no promotion has published.
    """
    numbers = exports.numbers(registry)
    if not numbers:
        return None
    folder = registry.version(numbers[0])
    try:
        return promotion_entry.read(
            join(folder, PROMOTION_DOCUMENT), "Remove this version, and `current` if it names it", numbers[0]
        )
    except MissingInputError as error:
        raise SettingsError(
            "no promotion has published this version, and servers take it for the newest one",
            place=folder,
            next_step="Move it away; a registry is a folder of its own, to which `promote` alone publishes",
        ) from error


def entry_of(registry: RegistryLayout, number: int) -> PromotionEntry:
    """The history's entry of a version.

    Raises:
      BadDataError: it is damaged.
      MissingInputError: there is none.
    """
    path = registry.entry(number)
    return promotion_entry.read(path, f"Copy {PROMOTION_DOCUMENT} of the version's folder over it", number)[0]


def history(registry: RegistryLayout) -> list[PromotionEntry]:
    """All entries in their order: each version, and behind it the candidates that it was kept for.

    Raises:
      BadDataError: one is damaged.
      MissingInputError: there is none.
    """
    found = []
    for entry in storage.list_dir(registry.history_dir) if storage.is_dir(registry.history_dir) else []:
        number = _number(entry.name, ".json")
        if number is not None:
            found.append(entry_of(registry, number))
        elif entry.name.startswith(f"{KEPT}-") and entry.name.endswith(".json"):
            found.append(promotion_entry.read(entry.path, "Move it away")[0])
    last = newest(registry)
    if last is not None and last[0].version not in {entry.version for entry in found}:
        found.append(last[0])
    if not found:
        raise MissingInputError(
            "no registry there: it has no history", place=registry.root, next_step="`tfos-job promote` makes one"
        )
    return sorted(found, key=lambda entry: (entry.version or entry.parent or 0, entry.kind == KEPT, entry.time))


def predictions_of(registry: RegistryLayout, entry: PromotionEntry) -> KeptPredictions:
    """The predictions of a promoted model for the frozen set.

    Raises:
      BadDataError: they are damaged, or those of another model.
      MissingInputError: they are gone.
    """
    assert entry.predictions is not None
    path = join(registry.history_dir, entry.predictions.file)
    kept, _ = kept_predictions.read(path, entry.predictions.sha256)
    if (kept.header.model_digest, kept.header.dataset_digest) != (entry.model.digest, entry.frozen_set.digest):
        raise BadDataError(
            "predictions of another model, or for other records, than the entry says",
            place=path,
            next_step="Restore the file, or promote a model with --accept_frozen_set",
        )
    return kept


def before(registry: RegistryLayout, current: PromotionEntry) -> int | None:
    """The version that was the current one before this model was promoted; None if there was none.

    Raises:
      BadDataError: an entry of the history is damaged.
      MissingInputError: one is gone.
    """
    origin = current
    while origin.restores is not None:  # a rollback is no promotion: what was before the model that it has brought back
        origin = entry_of(registry, origin.restores)
    return origin.parent


# --- writing ---------------------------------------------------------------------------------------------------------


def recover(registry: RegistryLayout) -> Standing:
    """Writes what a command that was ended has left to do, and removes what it had begun. Needs the lock.

    Raises:
      BadDataError: a document is damaged, or they contradict each other.
      SettingsError: as `newest`.
    """
    last = newest(registry)
    number = 0 if last is None else last[0].version or 0
    _sweep(registry, number)
    if last is None:
        if storage.exists(registry.current):
            raise _contradiction(registry, promotion_entry.read(registry.current, _REMOVE)[0], "there is no version")
        return Standing(None)
    finished = _follow(registry, *last)
    if finished:
        _log.warning("finished the promotion of version %d, whose command was ended before", number)
    return Standing(last[0], finished)


def publish(
    registry: RegistryLayout,
    source: ExportInfo,
    entry: PromotionEntry,
    predictions: bytes | None = None,
    *,
    bless: Callable[[str], None] = lambda folder: None,
    guard: Callable[[], None] = lambda: None,
) -> PromotionEntry:
    """Promotes: publishes the files of an export as the next version. The caller has the lock, and has recovered.

    Args:
      registry: where.
      source: the export, which may be a version of the registry.
      entry: of the history; its number is another one afterwards.
      predictions: a file of the model's for the frozen set; None if `entry` names one that is there.
      bless: called with the folder that is to be published; raises if the network does not answer.
      guard: called last before the rename; raises if the lock is somebody else's by now.

    Returns:
      The entry, as it is in the history now.

    Raises:
      BadDataError: the export is damaged, or another model than the entry's.
      StorageError: the file system failed. If it is behind the rename, the next command does the rest.
    """
    if source.digest != entry.model.digest:
        fact = f"the model {source.digest}, and its entry in the history is about {entry.model.digest}"
        raise BadDataError(fact, place=source.path, next_step="Take another version")
    number = _next_number(registry)
    building = registry.building(uuid.uuid4().hex)
    try:
        exports.copy(source, building, number)
        if predictions is not None:
            path = registry.predictions(number)
            storage.make_dirs(registry.history_dir)
            storage.write_bytes(path, predictions)
            named = PredictionsFile(
                file=path.rpartition("/")[2],
                size_bytes=len(predictions),
                sha256=hashlib.sha256(predictions).hexdigest(),
            )
            entry = msgspec.structs.replace(entry, predictions=named)
        entry = msgspec.structs.replace(entry, version=number)
        data = promotion_entry.to_bytes(entry)
        storage.write_bytes(join(building, PROMOTION_DOCUMENT), data)
        bless(building)
        guard()
        storage.publish_dir(building, registry.version(number))
    except BaseException:
        storage.remove(building)
        raise
    _follow(registry, entry, data)
    return entry


def keep(registry: RegistryLayout, entry: PromotionEntry) -> None:
    """Writes that a candidate was not promoted. The caller has the lock."""
    storage.make_dirs(registry.history_dir)
    since = "".join(character for character in entry.time if character.isalnum())
    storage.write_bytes(registry.kept(since, uuid.uuid4().hex[:8]), promotion_entry.to_bytes(entry))


_REMOVE = "Remove this file: the next command writes it again, from the newest version that is there"


def _follow(registry: RegistryLayout, entry: PromotionEntry, data: bytes) -> bool:
    """Brings history and `current` up to the newest version; returns whether `current` was behind."""
    assert entry.version is not None
    path = registry.entry(entry.version)
    storage.make_dirs(registry.history_dir)
    if not storage.create_exclusive(path, data) and storage.read_bytes(path) != data:
        fact = f"not what {PROMOTION_DOCUMENT} in {registry.version(entry.version)} is"
        raise BadDataError(fact, place=path, next_step="Find out which one was changed, and copy the other one over it")
    try:
        current, standing = promotion_entry.read(registry.current, _REMOVE)
    except MissingInputError:
        storage.write_bytes(registry.current, data)
        return True
    if standing == data:
        return False
    if current.version is None or current.version >= entry.version:
        raise _contradiction(registry, current, f"the newest one is {entry.version}, with another {PROMOTION_DOCUMENT}")
    storage.write_bytes(registry.current, data)
    return True


def _contradiction(registry: RegistryLayout, current: PromotionEntry, fact: str) -> BadDataError:
    return BadDataError(
        f"names version {current.version} as the current one, but {fact}", place=registry.current, next_step=_REMOVE
    )


def _sweep(registry: RegistryLayout, newest_number: int) -> None:
    """Removes unfinished files and versions, and predictions of a version that was not published."""
    exports.sweep(registry)
    beginning = f"_{registry.current.rpartition('/')[2]}."
    left = [entry.path for entry in storage.list_dir(registry.root) if entry.name.startswith(beginning)]
    if storage.is_dir(registry.history_dir):
        names = {entry.name: entry.path for entry in storage.list_dir(registry.history_dir)}
        for name, path in names.items():
            number = _number(name, ".npz")
            is_orphan = number is not None and number > newest_number and f"{number:06d}.json" not in names
            if is_orphan or name.startswith("_"):
                left.append(path)
    for path in left:
        storage.remove(path)


def _next_number(registry: RegistryLayout) -> int:
    """A number that no version has or had: a server that knows a number does not load it again."""
    names = (
        [entry.name for entry in storage.list_dir(registry.history_dir)] if storage.is_dir(registry.history_dir) else []
    )
    had = [number for name in names if (number := _number(name, ".json")) is not None]
    return max([*exports.numbers(registry), *had], default=0) + 1


def _number(name: str, ending: str) -> int | None:
    """The version in the name of a file of the history; None for any other name."""
    return export_version(name.removesuffix(ending)) if name.endswith(ending) else None
