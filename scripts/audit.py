"""Compares constraints.txt with a folder of advisories, without any network: scripts/audit.sh calls it.

    python scripts/audit.py --advisories DIR [--constraints FILE] [--ignored FILE]
    python scripts/audit.py --print-ignored [--ignored FILE]

DIR is a checkout of https://github.com/pypa/advisory-database: a file of YAML for each advisory, in the form of OSV
(https://ossf.github.io/osv-schema/), in `vulns/PACKAGE/`. Versions are compared by `packaging`. Exit codes: 0 (nothing
is found), 1 (something is: a table on stdout), 2 (a file that is not there or is none of these).
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]


class Pin(NamedTuple):
    """A package of constraints.txt; there may be two of one name, for different Pythons."""

    name: str
    version: str


class Found(NamedTuple):
    """An advisory that names a version of constraints.txt; `fixed` has the versions that mend it."""

    pin: Pin
    id: str
    aliases: tuple[str, ...]
    fixed: tuple[str, ...]
    about: str


class AuditError(Exception):
    """A file that cannot be compared."""


def pins(text: str) -> list[Pin]:
    """The packages of constraints.txt, those for all Pythons and systems.

    Raises:
      AuditError: a line names no exact version.
    """
    found = []
    for line in text.splitlines():
        content = line.partition("#")[0].strip()
        if content:
            try:
                requirement = Requirement(content)
                (specifier,) = requirement.specifier
            except (InvalidRequirement, ValueError) as error:
                raise AuditError(f"{content!r} is not NAME==VERSION") from error
            if specifier.operator != "==":
                raise AuditError(f"{content!r} is not NAME==VERSION")
            found.append(Pin(canonicalize_name(requirement.name), specifier.version))
    return found


def ignored(text: str, today: datetime.date) -> dict[str, str]:
    """The advisories that are accepted, by id, with the reason: lines of `ID DATE REASON`, good until DATE.

    Raises:
      AuditError: a line has no date or no reason.
    """
    found = {}
    for line in text.splitlines():
        if content := line.partition("#")[0].strip():
            words = content.split(maxsplit=2)
            try:
                identifier, until, reason = words
                is_good = today <= datetime.date.fromisoformat(until)
            except ValueError as error:
                raise AuditError(f"{content!r} is not ID YYYY-MM-DD REASON") from error
            if is_good:
                found[identifier] = reason
    return found


def affects(version: str, affected: Mapping[str, Any]) -> bool:
    """Whether one entry `affected` of an advisory names this version, by its list of versions or by a range.

    Raises:
      AuditError: a range cannot be compared.
    """
    if version in affected.get("versions", ()):
        return True
    try:
        own = Version(version)
        same = any(own == Version(each) for each in affected.get("versions", ()) if _is_version(each))
        ranges = [each for each in affected.get("ranges", ()) if each["type"] == "ECOSYSTEM"]
        return same or any(_within(own, each["events"]) for each in ranges)
    except (InvalidVersion, KeyError, TypeError) as error:
        raise AuditError(f"a range cannot be compared: {error}") from error


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:  # of before there were rules
        return False
    return True


def _within(own: Version, events: list[dict[str, str]]) -> bool:
    """OSV's rule: the last event at or before a version decides; `last_affected` ends behind its own version."""

    def at(event: dict[str, str]) -> Version:
        ((_, version),) = event.items()
        return Version(version)

    is_affected = False
    for event in sorted(events, key=at):
        ((kind, _),) = event.items()
        if kind == "introduced":
            is_affected = is_affected or own >= at(event)
        elif kind in ("fixed", "limit"):
            is_affected = is_affected and own < at(event)
        elif kind == "last_affected":
            is_affected = is_affected and own <= at(event)
    return is_affected


def audit(wanted: list[Pin], advisories: Path) -> list[Found]:
    """The advisories in a checkout that name a version of `wanted`, but for withdrawn ones.

    Raises:
      AuditError: it is no such checkout, or an advisory in it cannot be read.
    """
    folder = advisories / "vulns"
    if not folder.is_dir():
        raise AuditError(f"{advisories} has no folder vulns: it is no checkout of pypa/advisory-database")
    found = []
    for pin in sorted(set(wanted)):
        for path in sorted((folder / pin.name).glob("*.yaml")):
            try:
                advisory = yaml.safe_load(path.read_text("utf-8"))
                found += _found(pin, advisory)
            except (AuditError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
                raise AuditError(f"{path}: {error}") from error
    return found


def _found(pin: Pin, advisory: Mapping[str, Any]) -> Iterator[Found]:
    if "withdrawn" in advisory:
        return
    entries = [
        entry
        for entry in advisory["affected"]
        if entry["package"]["ecosystem"] == "PyPI" and canonicalize_name(entry["package"]["name"]) == pin.name
    ]
    if any(affects(pin.version, entry) for entry in entries):
        events = [event for entry in entries for each in entry.get("ranges", ()) for event in each["events"]]
        ecosystem = [event["fixed"] for event in events if "fixed" in event and _is_version(event["fixed"])]
        about = " ".join(str(advisory.get("summary") or advisory.get("details", "")).split())
        aliases = tuple(advisory.get("aliases", ()))
        yield Found(pin, advisory["id"], aliases, tuple(dict.fromkeys(ecosystem)), about)


def table(found: list[Found]) -> str:
    """A line for each advisory: package, version, id, what mends it, what it is about."""
    rows = [("package", "version", "advisory", "fixed in", "about")]
    rows += [(*one.pin, one.id, ", ".join(one.fixed) or "-", one.about[:80]) for one in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--advisories", type=Path, metavar="DIR")
    flags.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt", metavar="FILE")
    flags.add_argument("--ignored", type=Path, default=ROOT / "scripts" / "audit-ignored.txt", metavar="FILE")
    flags.add_argument("--print-ignored", action="store_true", help="print the ids that are accepted today")
    given = flags.parse_args()
    try:
        accepted = ignored(given.ignored.read_text("utf-8"), datetime.datetime.now(datetime.UTC).date())
        if given.print_ignored:
            print(*accepted, sep="\n", end="\n" if accepted else "")
            return 0
        if given.advisories is None:
            flags.error("--advisories DIR is needed")
        wanted = pins(given.constraints.read_text("utf-8"))
        found = audit(wanted, given.advisories)
    except (AuditError, OSError) as error:
        print(f"audit.py: {error}", file=sys.stderr)
        return 2
    left = [one for one in found if not {one.id, *one.aliases} & accepted.keys()]
    if left:
        print(table(left))
    words = f"{len(wanted)} versions in {given.constraints.name}, {len(left)} advisories"
    print(f"audit.py: {words}, {len(found) - len(left)} accepted in {given.ignored.name}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
