"""The files below `--gnt_dir` that are converted, and those that are left out; the files below `--image_dir`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from tfos_job import storage
from tfos_job.conversion.folders import FoundFile
from tfos_job.conversion.shard_plan import SourceFile
from tfos_job.errors import AccessError, BadDataError, JobError, MissingInputError, SettingsError
from tfos_job.formats import archives
from tfos_job.formats.archives import Member
from tfos_job.layout import SYNTH_SETTINGS, printable

SUFFIX = ".gnt"
_COMPARED_BYTES = 1 << 16
OnUnreadable = Callable[[SourceFile, JobError], None]
"""Takes a source that cannot be read, and why; what it does not raise is left out of the sources."""


def _refuse(source: SourceFile, error: JobError) -> NoReturn:
    raise error


@dataclass(frozen=True)
class SourceListing:
    """The GNT files below a folder.

    Attributes:
      sources: the files to convert, sorted by name.
      left_out: names of files without a GNT file's name, and of hidden folders; likely mistakes come first.
    """

    sources: tuple[SourceFile, ...]
    left_out: tuple[str, ...]

    @property
    def left_out_text(self) -> str:
        """The number of names that were left out, and an example."""
        others = "file or folder was" if len(self.left_out) == 1 else "files or folders were"
        return (
            f"{len(self.left_out)} {others} left out by name (not *{SUFFIX}, or hidden by a leading _ or .), such as "
            f"{printable(self.left_out[0])}"
        )


def find(gnt_dir: str) -> SourceListing:
    """Looks through a folder, those below it and the ZIP archives there; a leading `_` or `.` hides a name.

    Raises:
      MissingInputError: no such folder, nothing to convert in it, or a link in it leads nowhere.
      BadDataError: what has the name of a source is none: a FIFO, a device; its name is no text; or an archive is
        damaged, or holds GNT files that cannot be unpacked here.
      SettingsError: a file is there twice, in an archive and beside it, or in two archives.
    """
    listing = look(gnt_dir)
    if not listing.sources:
        fact = f"no *{SUFFIX} files in it, nor in *{archives.SUFFIX} archives"
        raise MissingInputError(
            f"{fact}; {listing.left_out_text}" if listing.left_out else fact,
            place=gnt_dir,
            next_step="Check --gnt_dir" + _packed_twice(listing.left_out),
        )
    return listing


def look(gnt_dir: str, on_unreadable: OnUnreadable = _refuse) -> SourceListing:
    """What `find` finds, which may be nothing.

    Args:
      gnt_dir: the folder.
      on_unreadable: takes each source that cannot be read, as far as that is seen now. If not given, it is refused.

    Raises:
      JobError: as `find`.
    """
    start = len(gnt_dir.rstrip("/")) + 1
    sources: list[SourceFile] = []
    left_out: list[str] = []
    for entry in _entries(gnt_dir):
        name = entry.path[start:]
        if name == SYNTH_SETTINGS:
            continue
        if entry.is_dir or _is_hidden(entry.name) or not name.endswith((SUFFIX, archives.SUFFIX)):
            left_out.append(name)
            continue
        members, others = _of_entry(entry, name, on_unreadable)
        sources += members
        left_out += others
    _require_once(sources, gnt_dir)
    return SourceListing(
        tuple(sorted(sources, key=lambda source: source.name)),
        tuple(sorted(left_out, key=lambda name: (SUFFIX not in name.lower(), name))),
    )


def of_file(entry: storage.Entry, name: str, on_unreadable: OnUnreadable = _refuse) -> list[SourceFile]:
    """The sources in one file, named `name`, that is a GNT file or a ZIP archive; raises as `find` does."""
    return _of_entry(entry, name, on_unreadable)[0]


def _of_entry(entry: storage.Entry, name: str, on_unreadable: OnUnreadable) -> tuple[list[SourceFile], list[str]]:
    """The sources in a file, and the names of what else is in it."""
    file = SourceFile(name, entry.path, entry.size_bytes, entry.mtime_s)
    try:
        _require_file(entry, name)
        members = [] if name.endswith(SUFFIX) else archives.read_directory(entry.path)
    except (AccessError, BadDataError, MissingInputError) as error:
        on_unreadable(file, error)
        return [], []
    return ([file], []) if name.endswith(SUFFIX) else _members(entry, name, members, on_unreadable)


def images_below(image_dir: str) -> list[FoundFile]:
    """All files below a folder, hidden ones too: `folders` tells those that are images.

    Raises:
      MissingInputError: no such folder.
    """
    start = len(image_dir.rstrip("/")) + 1
    entries = storage.find(image_dir, "", with_hidden=True)
    return [FoundFile(entry.path[start:], entry.size_bytes, entry.mtime_s, entry.special) for entry in entries]


def _packed_twice(left_out: Sequence[str]) -> str:
    """A word about an archive within an archive, which is not read."""
    within = (name.rpartition(f"{archives.SUFFIX}/")[0] for name in left_out if name.endswith(archives.SUFFIX))
    outer = next(filter(None, within), "")
    return f", and unpack {outer}{archives.SUFFIX}: there are archives in it" if outer else ""


def _entries(folder: str) -> Iterator[storage.Entry]:
    """All files, and the hidden folders, which are not looked into."""
    for entry in storage.list_dir(folder):
        if entry.is_dir and not _is_hidden(entry.name):
            yield from _entries(entry.path)
        else:
            yield entry


def _is_hidden(name: str) -> bool:
    return any(part.startswith(("_", ".")) for part in name.split("/"))


def _members(
    entry: storage.Entry, archive: str, members: Sequence[Member], on_unreadable: OnUnreadable
) -> tuple[list[SourceFile], list[str]]:
    """The GNT files in an archive, and the names of what else is in it."""
    sources: dict[str, SourceFile] = {}
    others = []
    has_gnt = False
    for member in members:
        name = f"{archive}/{member.name}"
        if _is_hidden(member.name) or not name.endswith(SUFFIX):
            others.append(name)
            continue
        has_gnt = True
        source = SourceFile(name, entry.path, member.size_bytes, entry.mtime_s, member)
        if fault := "there twice" if name in sources else member.fault:
            fact = f"its member {member.name} is {fault}"
            on_unreadable(source, BadDataError(fact, place=entry.path, next_step="Unpack it, and move it away"))
        else:
            sources[name] = source
    return list(sources.values()), others if others or has_gnt else [archive]


def _require_once(sources: Sequence[SourceFile], gnt_dir: str) -> None:
    """Raises SettingsError if an archive was unpacked beside itself, or is there twice: records would be, too."""
    files: dict[tuple[str, int], list[SourceFile]] = {}
    for source in sorted(sources, key=lambda source: source.member is not None):
        others = files.setdefault((source.name.rpartition("/")[2], source.size_bytes), [])
        if source.member and source.size_bytes:
            for other in others:
                if _is_same(other, source):
                    raise SettingsError(
                        f"its records would be there twice: {source.name} is {other.name} once more",
                        place=gnt_dir,
                        next_step="Move the archive away, or what was unpacked of it",
                    )
        others.append(source)


def _is_same(file: SourceFile, packed: SourceFile) -> bool:
    """True if a file of the same name and size is the packed one, judged by its first bytes or its CRC-32."""
    assert packed.member is not None
    if file.member is not None:
        return file.member.crc32 == packed.member.crc32
    try:
        with archives.open_source(file.path, None) as one, archives.open_source(packed.path, packed.member) as other:
            return one.read(_COMPARED_BYTES) == _first_bytes(other)
    except archives.DamagedMemberError:  # reported by the conversion
        return False


def _first_bytes(stream: storage.Readable) -> bytes:
    found = b""
    while len(found) < _COMPARED_BYTES and (data := stream.read(_COMPARED_BYTES - len(found))):
        found += data
    return found


def _require_file(entry: storage.Entry, name: str) -> None:
    """Raises for what cannot be read as a file, before it is waited for, and for a name that no manifest can hold."""
    if printable(name) != name:
        raise BadDataError("its name is not UTF-8", place=printable(entry.path), next_step="Rename it")
    if entry.special == storage.BROKEN_LINK:
        raise MissingInputError(
            entry.special, place=entry.path, next_step="Mount or restore what it leads to, or remove it"
        )
    if entry.special:
        raise BadDataError(f"{entry.special}, not a file", place=entry.path, next_step="Move it away")
