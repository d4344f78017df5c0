"""The differences between the source files that are there and those that were converted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfos_job.conversion.shard_plan import SourceFile
from tfos_job.formats.manifest_parts import Source


@dataclass(frozen=True)
class Comparison:
    """A file and a source that may have the same bytes: of one name and two times, or of two names and one size."""

    file: SourceFile
    source: Source


def comparisons(sources: Sequence[SourceFile], converted: Sequence[Source]) -> list[Comparison]:
    """The files whose bytes must be read to tell what has changed.

    A file of the same name, size and time is unchanged. One with another time may be a copy. One with a new name may
    have been renamed if a source of its size is gone.
    """
    now = {source.name: source for source in sources}
    then = {source.name: source for source in converted}
    found = [
        Comparison(now[name], then[name])
        for name in sorted(now.keys() & then.keys())
        if now[name].size_bytes == then[name].size_bytes and now[name].mtime_s != then[name].mtime_s
    ]
    gone: dict[int, list[Source]] = {}
    for name in sorted(then.keys() - now.keys()):
        gone.setdefault(then[name].size_bytes, []).append(then[name])
    for name in sorted(now.keys() - then.keys()):
        found += [Comparison(now[name], source) for source in gone.get(now[name].size_bytes, ())]
    return found


@dataclass(frozen=True)
class Changes:
    """The changes of the source files since they were converted.

    Attributes:
      added: files that are new.
      changed: files that have other bytes than they had.
      touched: files that have the same bytes and another time.
      gone: names of those that are no longer there.
      renamed: in words, files that are new and have the bytes of one that is gone.
    """

    added: tuple[SourceFile, ...]
    changed: tuple[SourceFile, ...]
    touched: tuple[SourceFile, ...]
    gone: tuple[str, ...]
    renamed: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """A text for each file that has changed; none if there is nothing to do."""
        words = [f"{source.name} is new" for source in self.added]
        words += [f"{source.name} has other bytes" for source in self.changed]
        return words + [f"{name} is gone" for name in self.gone]

    def __str__(self) -> str:
        return ", ".join(self.words)


def source_changes(sources: Sequence[SourceFile], converted: Sequence[Source], same: Sequence[Comparison]) -> Changes:
    """Compares the source files with those that were converted.

    Args:
      sources: the files that are there.
      converted: those that the manifest names.
      same: of `comparisons`, those of the same bytes.
    """
    now = {source.name: source for source in sources}
    then = {source.name: source for source in converted}
    both = sorted(now.keys() & then.keys())
    touched = {comparison.file.name for comparison in same if comparison.file.name == comparison.source.name}
    other = [
        now[name]
        for name in both
        if name not in touched
        and (now[name].size_bytes, now[name].mtime_s) != (then[name].size_bytes, then[name].mtime_s)
    ]
    return Changes(
        added=tuple(now[name] for name in sorted(now.keys() - then.keys())),
        changed=tuple(other),
        touched=tuple(now[name] for name in both if name in touched),
        gone=tuple(sorted(then.keys() - now.keys())),
        renamed=tuple(
            f"{comparison.file.name} is {comparison.source.name} under another name"
            for comparison in same
            if comparison.file.name != comparison.source.name
        ),
    )
