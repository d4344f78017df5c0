"""The proof that source files still hold the bytes that a split was made from. Runs on executors."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job import storage
from tfos_job.errors import MissingInputError
from tfos_job.formats.archives import DamagedMemberError, Member, open_source
from tfos_job.formats.hashing import HashingReader
from tfos_job.formats.manifest_parts import SourceRange
from tfos_job.verification.findings import Findings
from tfos_job.verification.record_scan import BLOCK_BYTES


@dataclass(frozen=True, kw_only=True)
class RangeTask:
    """A part of a source file that was read in one go. `size_bytes` is the whole file's.

    `path` is that of its archive if it is a `member` of one.
    """

    path: str
    name: str
    size_bytes: int
    range: SourceRange
    member: Member | None = None


def verify_ranges(tasks: tuple[RangeTask, ...]) -> Findings:
    """Compares the bytes of source files with those that were converted.

    Raises:
      JobError: one cannot be read for another reason than that it is not there.
    """
    findings = Findings()
    for task in tasks:
        try:
            fact = _range_fault(task)
        except MissingInputError:
            findings.add("missing_source", task.name, f"not at {task.path}")
            continue
        except DamagedMemberError as error:
            fact = error.fact if task.range.sha256 else ""  # as when it was converted
        if fact:
            findings.add("changed_source", task.name, fact, task.range.start)
    return findings


def _range_fault(task: RangeTask) -> str:
    """The difference between the range and what was converted; empty if there is none."""
    start, end, sha256 = task.range.start, task.range.end, task.range.sha256
    if special := storage.stat(task.path).special:
        return f"expected a file, found {special}"
    with open_source(task.path, task.member) as stream:
        if task.member is None:  # a member is one range
            stream.seek(start)
        reader = HashingReader(stream)
        while missing := end - start - reader.size_bytes:
            if not reader.read(min(missing, BLOCK_BYTES)):
                break
        longer = end == task.size_bytes and bool(stream.read(1))
    if missing or longer:
        return f"expected {task.size_bytes} bytes, found {f'fewer than {end}' if missing else 'more'}"
    if not sha256:
        return "expected a damaged member of an archive, as when it was converted, found a sound one"
    if reader.sha256 != sha256:
        return f"bytes {start} to {end}: expected SHA-256 {sha256[:12]}, found {reader.sha256[:12]}"
    return ""
