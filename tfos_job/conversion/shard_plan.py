"""The plan of shards: the bytes of source files that each is made of. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfos_job.formats.archives import Member

MIN_SHARDS = 8
TARGET_SHARD_BYTES = 128 << 20
SNAP = 0.05
"""A shard ends with a source file if that makes it larger or smaller by no more than this fraction."""
MIN_CUT_BYTES = 1 << 20
"""A file that is smaller than this is in one shard alone; so is a member of an archive, which cannot be sought in."""


@dataclass(frozen=True)
class SourceFile:
    """A GNT file to convert.

    Attributes:
      name: its path below `--gnt_dir`; of a member, the archive's followed by that in the archive.
      path: of the file, or of the archive that it is a member of.
      mtime_s: of that file.
      member: of the archive; None for a file.
    """

    name: str
    path: str
    size_bytes: int
    mtime_s: float
    member: Member | None = None

    @property
    def archive(self) -> str:
        """The path of its archive below `--gnt_dir`; empty for a file."""
        return self.name.removesuffix(f"/{self.member.name}") if self.member else ""

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.path}/{self.member.name}" if self.member else self.path

    @property
    def may_be_cut(self) -> bool:
        return self.member is None and self.size_bytes >= MIN_CUT_BYTES


@dataclass(frozen=True)
class Piece:
    """The records of a source file that begin in its bytes `start` to `stop` (exclusive).

    `within`: `start` was chosen by size, and is within some record as a rule.
    """

    source: SourceFile
    start: int
    stop: int
    within: bool = False


def plan_groups(
    sources: Sequence[SourceFile], target_bytes: int = TARGET_SHARD_BYTES, min_groups: int = MIN_SHARDS
) -> list[tuple[Piece, ...]]:
    """Cuts the sources, in the order of their names, into one group of pieces a shard, all of about the same size.

    There are as many groups as it takes for none to be much larger than `target_bytes`, and at least `min_groups`, so
    that several workers can share them (fewer for less data than that: a file below `MIN_CUT_BYTES` is not cut). Groups
    differ from their average by at most `2 × SNAP`, unless such small files stand in the way. They are in file order:
    the first one that fails holds the first bad file.
    """
    ordered = sorted(sources, key=lambda source: source.name)
    total_bytes = sum(source.size_bytes for source in ordered)
    whole = sum(1 for source in ordered if source.member)
    bytes_to_cut = sum(source.size_bytes for source in ordered if not source.member)
    enough_for = max(len(ordered), whole + bytes_to_cut // MIN_CUT_BYTES)
    num_groups = max(-(-total_bytes // target_bytes), min(min_groups, enough_for))
    groups = _Groups(total_bytes, num_groups)
    for index, source in enumerate(ordered):
        groups.add(source, sources_left=len(ordered) - index - 1)
    return groups.done()


class _Groups:
    """Groups that are filled one after the other, each with its share of the bytes that are left."""

    def __init__(self, total_bytes: int, num_groups: int) -> None:
        self._bytes_left = total_bytes  # those of the open group included
        self._groups_left = num_groups
        self._group: list[Piece] = []
        self._group_bytes = 0
        self._closed: list[tuple[Piece, ...]] = []

    def add(self, source: SourceFile, sources_left: int) -> None:
        start = 0
        while self._groups_left > 1 and source.may_be_cut:
            wanted = round(self._bytes_left / self._groups_left)
            missing, snap = wanted - self._group_bytes, SNAP * wanted
            if source.size_bytes - start <= missing + snap:
                break
            if missing > snap or not self._group:
                self._put(Piece(source, start, start + missing, within=start > 0))
                start += missing
            self._close()
        self._put_rest(source, start, sources_left)

    def _put_rest(self, source: SourceFile, start: int, sources_left: int) -> None:
        """Adds what need not be cut, and closes the group when it is nearest to its share."""
        rest = source.size_bytes - start
        average = self._bytes_left / max(self._groups_left, 1)
        if self._group and self._groups_left > 1 and self._group_bytes + rest / 2 > average and sources_left:
            self._close()
            average = self._bytes_left / self._groups_left
        self._put(Piece(source, start, source.size_bytes, within=start > 0))
        is_full = self._group_bytes >= average
        if self._groups_left > 1 and sources_left and (is_full or self._must_close(source, sources_left)):
            self._close()

    def _must_close(self, source: SourceFile, sources_left: int) -> bool:
        """True if the group must end here, so that each group that is left gets at least one file."""
        return not source.may_be_cut and sources_left < self._groups_left

    def _put(self, piece: Piece) -> None:
        self._group.append(piece)
        self._group_bytes += piece.stop - piece.start

    def _close(self) -> None:
        self._closed.append(tuple(self._group))
        self._bytes_left -= self._group_bytes
        self._groups_left -= 1
        self._group, self._group_bytes = [], 0

    def done(self) -> list[tuple[Piece, ...]]:
        return [*self._closed, tuple(self._group)] if self._group else self._closed
