"""Which of the things in some folders stay, and why. Pure: things and a policy in, decisions out.

Everything that is doubtful stays: a thing is removed only if all reasons to keep it fail.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

DAY_S = 86_400.0


class Kind(enum.Enum):
    """What a thing is; the value is its name for people."""

    RUN = "run"
    EXPORT = "export"  # a version of an exported network
    EXPORTS = "exports"  # a folder of such versions, which goes as a whole
    VERSION = "version"  # of a registry
    OUTCOME = "outcome"
    EVENT_LOG = "event log"
    ARCHIVE = "archive"
    LEFTOVER = "leftover"  # of a command that was killed, or what another generation has replaced
    OTHER = "unknown"


COUNTED = (Kind.RUN, Kind.EXPORT, Kind.EXPORTS, Kind.VERSION)
AGED = (Kind.OUTCOME, Kind.EVENT_LOG)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A file or folder that is judged, and removed, as a whole.

    Attributes:
      kind: what it is.
      path: where.
      size_bytes: of its files.
      time_s: of its last change, Unix time.
      group: those of one kind and one group are counted together, such as those of one folder.
      number: of a version, by which it is newer than another one; else 0, and the time decides.
      is_finished: of a run: its training is; of an outcome: the application has ended.
      digests: of the models and documents in it, by which what needs it may name it.
      obstacle: why it stays whatever the policy says; empty if nothing does.
      holder: who is at work on it; empty if nobody is.
    """

    kind: Kind
    path: str
    size_bytes: int
    time_s: float
    group: str = ""
    number: int = 0
    is_finished: bool = True
    digests: frozenset[str] = frozenset()
    obstacle: str = ""
    holder: str = ""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What stays.

    Attributes:
      keep: newest things of each counted kind that stay; all of a kind that is not in it.
      older_than_s: of counted kinds, what has changed within these seconds stays, too.
      unused_s: of all others but leftovers, what was of use within these seconds stays.
    """

    keep: Mapping[Kind, int]
    older_than_s: float = 0.0
    unused_s: float = 30 * DAY_S


class Decision(NamedTuple):
    """Whether a thing is removed, and why in words; `is_busy` if it stays only since somebody is at work on it."""

    thing: Thing
    is_removed: bool
    reason: str
    is_busy: bool = False


def decide(things: Iterable[Thing], policy: Policy, needed: Mapping[str, str], now_s: float) -> list[Decision]:
    """Decides about all things.

    Args:
      things: of all folders.
      policy: what stays.
      needed: paths of things that something else needs, each with the reason in words.
      now_s: Unix time.

    Returns:
      The decisions, in the order of the things.
    """
    things = list(things)
    places = _places(things)
    at_work = _at_work(things, policy, now_s)
    found = []
    for thing in things:
        stays = thing.obstacle or needed.get(thing.path, "") or _kept(thing, places, at_work, policy, now_s)
        if stays:
            found.append(Decision(thing, False, stays))
        elif thing.holder:
            found.append(Decision(thing, False, f"in use by {thing.holder}", is_busy=True))
        else:
            found.append(Decision(thing, True, _why_removed(thing, policy)))
    return found


class _Place(NamedTuple):
    """A thing among those of its group: how many are newer, the next newer one, and the newest finished one."""

    num_newer: int
    newer: Thing | None
    newest_finished: Thing | None


def _places(things: Sequence[Thing]) -> dict[tuple[Kind, str], _Place]:
    groups: dict[tuple[Kind, str], list[Thing]] = defaultdict(list)
    for thing in things:
        if not thing.obstacle:  # what stays by itself takes no other's place
            groups[thing.kind, thing.group].append(thing)
    found = {}
    for group in groups.values():
        group.sort(key=lambda thing: (thing.number, thing.time_s, thing.path), reverse=True)
        finished = next((thing for thing in group if thing.is_finished), None)
        for at, thing in enumerate(group):
            found[thing.kind, thing.path] = _Place(at, group[at - 1] if at else None, finished)
    return found


def _at_work(things: Sequence[Thing], policy: Policy, now_s: float) -> Thing | None:
    """The outcome of an application that may be at work, and so may read any archive."""
    for thing in things:
        if thing.kind is Kind.OUTCOME and not thing.is_finished and now_s - thing.time_s <= policy.unused_s:
            return thing
    return None


def _kept(
    thing: Thing, places: Mapping[tuple[Kind, str], _Place], at_work: Thing | None, policy: Policy, now_s: float
) -> str:
    """Why the policy keeps a thing; empty if it does not."""
    place = places[thing.kind, thing.path]
    if thing.kind in COUNTED:
        return _kept_of_counted(thing, place, policy, now_s)
    if thing.kind in AGED:
        return "" if now_s - thing.time_s > policy.unused_s else f"not older than {days(policy.unused_s)}"
    if thing.kind is Kind.ARCHIVE:
        if place.newer is None:
            return "the newest of its kind"
        if at_work is not None:
            return f"may be in use: no end in {at_work.path}"
        is_unused = now_s - place.newer.time_s > policy.unused_s
        return "" if is_unused else f"was the newest of its kind within {days(policy.unused_s)}"
    return "" if thing.kind is Kind.LEFTOVER else "not known"


def _kept_of_counted(thing: Thing, place: _Place, policy: Policy, now_s: float) -> str:
    keep = policy.keep.get(thing.kind)
    if keep is None:
        return "nothing is said about these"
    if place.num_newer < keep:
        return "the newest" if keep == 1 else f"among the newest {keep}"
    if place.newest_finished is thing:
        return "the newest finished one"
    if now_s - thing.time_s <= policy.older_than_s:
        return f"not older than {days(policy.older_than_s)}"
    return ""


def _why_removed(thing: Thing, policy: Policy) -> str:
    if thing.kind in COUNTED:
        keep = policy.keep[thing.kind]
        return "not the newest" if keep == 1 else f"not among the newest {keep}"
    if thing.kind is Kind.LEFTOVER:
        return "nothing needs it"
    if thing.kind is Kind.ARCHIVE:
        return f"others are in its place since more than {days(policy.unused_s)}"
    return f"older than {days(policy.unused_s)}"


def days(seconds: float) -> str:
    number = seconds / DAY_S
    return f"{number:g} day{'' if number == 1 else 's'}"
