"""Which files below `--gnt_dir` are converted, and which are not: nothing is left out without a word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tfos_job import storage
from tfos_job.data.plan import SourceFile
from tfos_job.errors import BadDataError, MissingInputError

SUFFIX = ".gnt"


@dataclass(frozen=True)
class Listing:
    """What is in a folder.

    Attributes:
      sources: what is to be converted, sorted by name.
      left_out: names of files that are none of it by their names, and of hidden folders; what may have been meant comes
        first.
    """

    sources: tuple[SourceFile, ...]
    left_out: tuple[str, ...]

    @property
    def account(self) -> str:
        """In words, how many were left out, and an example."""
        others = "file or folder was" if len(self.left_out) == 1 else "files or folders were"
        return (
            f"{len(self.left_out)} {others} left out by name (not *{SUFFIX}, or hidden by a leading _ or .), such as "
            f"{_text(self.left_out[0])}"
        )


def find(gnt_dir: str) -> Listing:
    """Looks through a folder and those below it; a leading `_` or `.` hides a name, as for `storage.find`.

    Raises:
      MissingInputError: no such folder, nothing to convert in it, or a link in it leads nowhere.
      BadDataError: what has the name of a source is none: a FIFO, a device; or its name is no text.
    """
    start = len(gnt_dir.rstrip("/")) + 1
    sources: list[SourceFile] = []
    left_out: list[str] = []
    for entry in _entries(gnt_dir):
        name = entry.path[start:]
        if entry.is_dir or _is_hidden(entry) or not name.endswith(SUFFIX):
            left_out.append(name)
            continue
        _require_file(entry, name)
        sources.append(SourceFile(name, entry.path, entry.size_bytes, entry.mtime_s))
    listing = Listing(
        tuple(sorted(sources, key=lambda source: source.name)),
        tuple(sorted(left_out, key=lambda name: (SUFFIX not in name.lower(), name))),
    )
    if not sources:
        fact = f"no *{SUFFIX} files in it"
        raise MissingInputError(
            f"{fact}; {listing.account}" if left_out else fact, place=gnt_dir, next_step="Check --gnt_dir"
        )
    return listing


def _entries(folder: str) -> Iterator[storage.Entry]:
    """All files, and the hidden folders, which are not looked into."""
    for entry in storage.list_dir(folder):
        if entry.is_dir and not _is_hidden(entry):
            yield from _entries(entry.path)
        else:
            yield entry


def _is_hidden(entry: storage.Entry) -> bool:
    return entry.name.startswith(("_", "."))


def _require_file(entry: storage.Entry, name: str) -> None:
    """Raises for what cannot be read as a file, before it is waited for, and for a name that no manifest can hold."""
    if _text(name) != name:
        raise BadDataError("its name is not UTF-8", place=_text(entry.path), next_step="Rename it")
    if entry.special == storage.BROKEN_LINK:
        raise MissingInputError(
            entry.special, place=entry.path, next_step="Mount or restore what it leads to, or remove it"
        )
    if entry.special:
        raise BadDataError(f"{entry.special}, not a file", place=entry.path, next_step="Move it away")


def _text(name: str) -> str:
    """A name as one can write it: with escapes for bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
