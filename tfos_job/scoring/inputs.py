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
from tfos_job.errors import BadDataError, JobError, MissingInputError, SettingsError
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
      fault: why it cannot be read, in words; empty if it seems that it can.
    """

    kind: str
    path: str
    size_bytes: int
    version: str
    num_records: int = 0
    charset: str = ""
    member: dict[str, Any] | None = None
    fault: str = ""

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

    One of several that is seen to be unreadable is a file with its `fault`.

    Raises:
      MissingInputError: nothing is there, or nothing that could be answered.
      SettingsError: a file or folder of another kind.
      BadDataError: a manifest is damaged, or the one archive that was named.
      JobError: what storage raises.
    """
    found: dict[tuple[str, str], InputFile] = {}
    entries = _entries(storage.absolute(pattern))
    # Of several, those that are no input by their names are left to the others: `dataset/*` has a charset.json.
    chosen = [entry for entry in entries if entry.is_dir or _is_input(entry.name)] or entries
    num_left_out = len(entries) - len(chosen)
    for entry in chosen:
        inputs = _of(entry, is_alone=len(chosen) == 1)
        num_left_out += inputs.num_left_out
        for file in inputs.files:  # a pattern may name a folder and a file in it
            found.setdefault((file.name, file.fault), file)
    if not found:
        fact = f"no input in it; {num_left_out} files were left out by their names" if num_left_out else "no input"
        raise MissingInputError(fact, place=pattern, next_step=f"Give {_KINDS}")
    return Inputs(tuple(found.values()), num_left_out)


def _entries(pattern: str) -> list[storage.Entry]:
    """What a pattern matches, sorted; what is there, if it is none, or is the name of it."""
    if not _WILDCARD.search(pattern) or storage.exists(pattern):
        return [storage.stat(pattern)]
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if _WILDCARD.search(part))
    found = list(_matches("/".join(parts[:first]) or "/", parts[first:]))
    if not found:
        raise MissingInputError("nothing matches the pattern", place=pattern, next_step="Check --input")
    return found


def _matches(folder: str, parts: Sequence[str]) -> Iterator[storage.Entry]:
    part, *rest = parts
    if not storage.is_dir(folder):
        return
    if _WILDCARD.search(part):
        # As listed: a link that leads nowhere is an entry, too. A wildcard matches no hidden name, as in a shell.
        found = [entry for entry in storage.list_dir(folder) if fnmatch.fnmatchcase(entry.name, part)]
        found = [entry for entry in found if not entry.name.startswith(("_", "."))]
    else:
        path = join(folder, part)
        found = [storage.stat(path)] if storage.exists(path) else []
    for entry in found:
        yield from _matches(entry.path, rest) if rest else [entry]


def _of(entry: storage.Entry, *, is_alone: bool) -> Inputs:
    """The inputs that a file or folder is, or has in it; a file that is alone and unreadable is an error."""
    if not entry.is_dir:
        return Inputs(tuple(_of_file(entry, is_alone)))
    path = entry.path
    layout = SplitLayout(path.rstrip("/"))
    if storage.exists(layout.manifest):
        return Inputs(tuple(_of_split(layout)))
    dataset = DatasetLayout(layout.root)
    if storage.exists(dataset.charset):
        splits = [one.name for one in storage.list_dir(path) if storage.exists(dataset.split(one.name).manifest)]
        raise SettingsError("is a whole dataset", place=path, next_step=f"Name a split in it: {', '.join(splits)}")
    below = sources.images_below(path)
    pictures = folders.shown(below)
    if packed := [file.name for file in below if _is_packed(file.name)]:
        if pictures:
            raise SettingsError(
                f"has GNT files or archives in it, such as {printable(packed[0])}, and {len(pictures)} pictures",
                place=path,
                next_step="Name those that are meant, by a pattern such as */*.png, or move the others away",
            )
        unreadable: list[InputFile] = []
        listing = sources.look(path, _keep_in(unreadable))
        files = [*map(_of_source, listing.sources), *unreadable]
        return Inputs(tuple(sorted(files, key=lambda file: file.name)), len(listing.left_out))
    return Inputs(tuple(_of_picture(path, file) for file in pictures), len(below) - len(pictures))


def _is_packed(name: str) -> bool:
    """True for a GNT file or an archive that is not hidden, nor in a hidden folder."""
    is_hidden = any(part.startswith(("_", ".")) for part in name.split("/"))
    return name.endswith((sources.SUFFIX, archives.SUFFIX)) and not is_hidden


def _is_input(name: str) -> bool:
    return name.endswith((sources.SUFFIX, archives.SUFFIX)) or name.lower().endswith(folders.SUFFIXES)


def _of_file(entry: storage.Entry, is_alone: bool) -> list[InputFile]:
    folder, _, name = entry.path.rpartition("/")
    if name.endswith((sources.SUFFIX, archives.SUFFIX)):
        if is_alone:
            return [_of_source(source) for source in sources.of_file(entry, name)]
        unreadable: list[InputFile] = []
        return [_of_source(source) for source in sources.of_file(entry, name, _keep_in(unreadable))] + unreadable
    if name.lower().endswith(folders.SUFFIXES):
        return [_of_picture(folder, FoundFile(name, entry.size_bytes, entry.mtime_s, entry.special))]
    raise SettingsError("is no input", place=printable(entry.path), next_step=f"Give {_KINDS}")


def _of_split(split: SplitLayout) -> Iterator[InputFile]:
    contents = load_unchanged(split)
    dataset = DatasetLayout(split.root.rpartition("/")[0])
    if manifest.load_charset(dataset).digest != contents.charset_digest:  # its records have the ids of other names
        raise BadDataError(
            f"is not the charset of {split.root}",
            place=dataset.charset,
            next_step="Run `tfos-job verify` on the dataset",
        )
    for path, shard in zip(manifest.shard_paths(split, contents), contents.shards, strict=True):
        yield InputFile(
            SHARD, path, shard.size_bytes, shard.sha256, num_records=shard.num_records, charset=dataset.charset
        )


def _keep_in(unreadable: list[InputFile]) -> sources.OnUnreadable:
    """A function that puts sources which cannot be read among inputs, since one of many is no reason to stop."""
    return lambda source, error: unreadable.append(_of_source(source)._replace(fault=in_words(error)))


def _of_source(source: SourceFile) -> InputFile:
    member = None if source.member is None else vars(source.member)
    return InputFile(GNT, source.path, source.size_bytes, repr(source.mtime_s), member=member)


def _of_picture(folder: str, file: FoundFile) -> InputFile:
    # Reading what is no file might never end.
    fault = file.special if file.special in ("", storage.BROKEN_LINK) else f"{file.special}, not a file"
    return InputFile(PICTURE, join(folder, file.name), file.size_bytes, repr(file.mtime_s), fault=fault)


def member_of(file: InputFile) -> Member | None:
    """The member of an archive that a file is."""
    return None if file.member is None else Member(**file.member)


def require_unchanged(file: InputFile) -> None:
    """Proves, before it is read, that a file is the one that was found. A shard's digest is proved while it is read.

    Raises:
      BadDataError: it has another size or time.
      MissingInputError: it is gone.
    """
    if file.kind == SHARD:
        return
    there = storage.stat(file.path)
    if file.member is None and there.size_bytes != file.size_bytes:
        raise changed(f"it has {there.size_bytes} bytes, had {file.size_bytes}", file)
    if repr(there.mtime_s) != file.version:
        raise changed("it was written again", file)


def changed(fact: str, file: InputFile) -> BadDataError:
    """The error about an input that is not the one of the job's plan: answers about both would be mixed."""
    return BadDataError(
        f"changed since the job began: {fact}", place=file.name, next_step="Run infer again with another --output_dir"
    )


def in_words(error: JobError) -> str:
    """An error without its place, which the row has."""
    return ". ".join(filter(None, (error.fact, error.next_step)))
