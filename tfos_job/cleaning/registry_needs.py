"""The versions of a registry that must stay whatever the policy says, and the entries of those that do."""

from __future__ import annotations

from collections.abc import Iterable

from tfos_job.cleaning.plan import Decision
from tfos_job.errors import MissingInputError
from tfos_job.layout import PROMOTION_DOCUMENT, RegistryLayout, join
from tfos_job.run import model_registry, promotion_entry
from tfos_job.run.promotion_entry import PromotionEntry

_NEXT_STEP = "Restore it, or remove this version if nobody goes back to it; until then nothing is removed"


def needed_versions(registry: RegistryLayout) -> dict[str, str]:
    """The folders of versions that must stay, each with the reason in words.

    Raises:
      BadDataError: a document is damaged, so that nobody knows which they are.
      MissingInputError: the history lacks one.
      SettingsError: the highest number is of a folder that no promotion has published.
    """
    newest = model_registry.newest(registry)
    if newest is None:
        return {}
    current = newest[0]
    reasons = {current.version: "the current one"}
    if (before := model_registry.before(registry, current)) is not None:
        reasons.setdefault(before, "`rollback` goes back to it")
    if current.parent is not None:
        reasons.setdefault(current.parent, "the parent of the current one")
    if (named := _named_as_current(registry)) is not None:
        reasons.setdefault(named, "`current` names it")
    return {registry.version(number): reason for number, reason in reasons.items() if number is not None}


def _named_as_current(registry: RegistryLayout) -> int | None:
    """The version in `current`, which is behind the newest one where a command was killed."""
    try:
        return promotion_entry.read(registry.current, "Remove this file: the next `promote` writes it again")[0].version
    except MissingInputError:
        return None


def entries(decisions: Iterable[Decision]) -> list[PromotionEntry]:
    """The entries of those versions that stay, from their own folders.

    Raises:
      BadDataError: one is damaged, so that nobody knows what it was made from.
    """
    found = []
    for thing, is_removed, _, _ in decisions:
        if is_removed or not thing.number:
            continue
        try:
            found.append(promotion_entry.read(join(thing.path, PROMOTION_DOCUMENT), _NEXT_STEP, thing.number)[0])
        except MissingInputError:
            continue  # not promoted, and nothing tells what it was made from
    return found
