"""SHA-256 of source files and shards, to tell whether they have changed. Runs on executors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tfos_job import storage
from tfos_job.conversion.source_changes import Comparison
from tfos_job.formats.archives import DamagedMemberError, Member, open_source
from tfos_job.formats.manifest_parts import SourceRange


def has_same_bytes(comparison: Comparison) -> bool:
    """Reads the file, range by range of the source."""
    file, ranges = comparison.file, comparison.source.ranges
    try:
        return range_digests(file.path, ranges, file.member) == [part.sha256 for part in ranges]
    except DamagedMemberError:
        return False


def range_digests(path: str, ranges: Sequence[SourceRange], member: Member | None = None) -> list[str]:
    """SHA-256 (hex) of each of the ranges, which are adjacent from the file's or the member's beginning on."""
    found = []
    with open_source(path, member) as stream:
        for part in ranges:
            digest, left = hashlib.sha256(), part.end - part.start
            while left and (data := stream.read(min(left, storage.BUFFER_BYTES))):
                digest.update(data)
                left -= len(data)
            found.append(digest.hexdigest())
    return found


def file_sha256(file: tuple[str, int]) -> str:
    """SHA-256 (hex) of a file's first so many bytes."""
    path, size_bytes = file
    return range_digests(path, [SourceRange(start=0, end=size_bytes, sha256="")])[0]
