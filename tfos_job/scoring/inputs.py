"""The files that `infer --input` names: a dataset's split, GNT files, pictures, or several of these by a pattern."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tfos_job import storage
from tfos_job.conversion import folders, sources
from tfos_job.conversion.folders import FoundFile
from tfos_job.conversion.shard_plan import SourceFile
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.formats import archives, manifest
from tfos_job.formats.adopted_shards import load_unchanged
from tfos_job.formats.archives import Member
from tfos_job.layout import DatasetLayout, SplitLayout, join, printable

SHARD, GNT, PICTURE = "shard", "gnt", "picture"
_WILDCARD = re.compile(r"[*?[]")
_KINDS = "a dataset's split (the folder with its manifest.json), *.gnt or *.zip files, pictures, or a folder of these"


class InputFile(NamedTuple):
    """A file of inputs. It is sent to executors, so it holds JSON values alone.

    Attributes:
      kind: `shard`, `gnt` or `picture`.
      path: of the file, or of the archive that it is a member of.
      size_bytes: of its contents.
      version: what changes when its contents do: its time, or its digest by a manifest.
      num_records: of a shard, by its manifest.
      charset: of a shard: path of the file that has the names of its classes.
      member: of an archive, the fields of a `Member`.
      special: what is there in place of a file (`storage.Entry`).
    """

    kind: str
    path: str
    size_bytes: int
    version: str
    num_records: int = 0
    charset: str = ""
    member: dict[str, Any] | None = None
    special: str = ""

    @property
    def name(self) -> str:
        """For results and errors."""
        return f"{self.path}/{self.member['name']}" if self.member else self.path


@dataclass(frozen=True)
class Inputs:
    """Files in the order in which they are answered.

    Attributes:
      num_left_out: files beside them that were left out by their names.
    """

    files: tuple[InputFile, ...]
    num_left_out: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of names, sizes and versions, in order."""
        found = hashlib.sha256()
        for file in self.files:
            line = f"{file.kind}\0{file.name}\0{file.size_bytes}\0{file.version}\n"
            found.update(line.encode("utf-8", "surrogateescape"))
        return found.hexdigest()


def find(pattern: str) -> Inputs:
    """The files of an `--input`: of one path, or of all that a pattern with `*`, `?` or `[…]` matches.

    Raises:
      MissingInputError: nothing is there, or nothing that could be answered.
      SettingsError: a file or folder of another kind.
      BadDataError: a manifest or an archive is damaged.
      JobError: what storage raises.
    """
    found: dict[str, InputFile] = {}
    num_left_out = 0
    for path in _paths(storage.absolute(pattern)):
        inputs = _of(path)
        num_left_out += inputs.num_left_out
        for file in inputs.files:  # a pattern may name a folder and a file in it
            found.setdefault(file.name, file)
    if not found:
        fact = f"no input in it; {num_left_out} files were left out by their names" if num_left_out else "no input"
        raise MissingInputError(fact, place=pattern, next_step=f"Give {_KINDS}")
    return Inputs(tuple(found.values()), num_left_out)


def _paths(pattern: str) -> list[str]:
    """The paths that a pattern matches, sorted; itself, if it is none, or is the name of what is there."""
    if not _WILDCARD.search(pattern) or storage.exists(pattern):
        return [pattern]
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if _WILDCARD.search(part))
    found = list(_matches("/".join(parts[:first]) or "/", parts[first:]))
    if not found:
        raise MissingInputError("nothing matches the pattern", place=pattern, next_step="Check --input")
    return found


def _matches(folder: str, parts: Sequence[str]) -> Iterator[str]:
    part, *rest = parts
    if not storage.is_dir(folder):
        return
    if _WILDCARD.search(part):
        names = [entry.name for entry in storage.list_dir(folder)]
        # As in a shell and in Hadoop, a wildcard does not match hidden names.
        names = [name for name in names if fnmatch.fnmatchcase(name, part) and not name.startswith(("_", "."))]
    else:
        names = [part] if storage.exists(join(folder, part)) else []
    for name in names:
        yield from _matches(join(folder, name), rest) if rest else [join(folder, name)]


def _of(path: str) -> Inputs:
    """The inputs at a path."""
    entry = storage.stat(path)
    if not entry.is_dir:
        return Inputs(tuple(_of_file(entry)))
    layout = SplitLayout(path.rstrip("/"))
    if storage.exists(layout.manifest):
        return Inputs(tuple(_of_split(layout)))
    dataset = DatasetLayout(layout.root)
    if storage.exists(dataset.charset):
        splits = [one.name for one in storage.list_dir(path) if storage.exists(dataset.split(one.name).manifest)]
        raise SettingsError("is a whole dataset", place=path, next_step=f"Name a split in it: {', '.join(splits)}")
    below = sources.images_below(path)
    if any(file.name.endswith((sources.SUFFIX, archives.SUFFIX)) for file in below):
        listing = sources.find(path)
        return Inputs(tuple(map(_of_source, listing.sources)), len(listing.left_out))
    pictures = folders.shown(below)
    return Inputs(tuple(_of_picture(path, file) for file in pictures), len(below) - len(pictures))


def _of_file(entry: storage.Entry) -> list[InputFile]:
    folder, _, name = entry.path.rpartition("/")
    if name.endswith((sources.SUFFIX, archives.SUFFIX)):
        return [_of_source(source) for source in sources.of_file(entry, name)]
    if name.lower().endswith(folders.SUFFIXES):
        return [_of_picture(folder, FoundFile(name, entry.size_bytes, entry.mtime_s, entry.special))]
    raise SettingsError("is no input", place=printable(entry.path), next_step=f"Give {_KINDS}")


def _of_split(split: SplitLayout) -> Iterator[InputFile]:
    contents = load_unchanged(split)
    charset = DatasetLayout(split.root.rpartition("/")[0]).charset
    for path, shard in zip(manifest.shard_paths(split, contents), contents.shards, strict=True):
        yield InputFile(SHARD, path, shard.size_bytes, shard.sha256, num_records=shard.num_records, charset=charset)


def _of_source(source: SourceFile) -> InputFile:
    member = None if source.member is None else vars(source.member)
    return InputFile(GNT, source.path, source.size_bytes, repr(source.mtime_s), member=member)


def _of_picture(folder: str, file: FoundFile) -> InputFile:
    return InputFile(PICTURE, join(folder, file.name), file.size_bytes, repr(file.mtime_s), special=file.special)


def member_of(file: InputFile) -> Member | None:
    """The member of an archive that a file is."""
    return None if file.member is None else Member(**file.member)


def special_error(file: InputFile) -> BadDataError | MissingInputError:
    """The error about what is no file: reading it might never end."""
    if file.special == storage.BROKEN_LINK:
        return MissingInputError(file.special, place=file.name)
    return BadDataError(f"{file.special}, not a file", place=file.name)
