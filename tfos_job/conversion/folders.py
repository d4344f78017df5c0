"""Folders of images: the class of each file, the changes since it was converted, and the shard it goes to. Pure."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tfos_job.conversion.shard_plan import MIN_SHARDS
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.formats.charset import class_name
from tfos_job.layout import printable

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif")
"""Of the names that are images, in lower case."""
_LITTER = ("@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "__MACOSX")
"""Folders that NAS systems and archivers make beside what people have put there; others begin with a dot."""
_LABELS_COLUMNS = 2
_NUM_TOLD = 8


class FoundFile(NamedTuple):
    """A file; `name` is its path below `--image_dir`, `special` the kind of a file that is none (`storage.Entry`)."""

    name: str
    size_bytes: int
    mtime_s: float
    special: str = ""


class ImageFile(NamedTuple):
    """An image file and the name of its class; `special` as in `FoundFile`."""

    name: str
    size_bytes: int
    mtime_s: float
    label: str
    special: str = ""


@dataclass(frozen=True)
class ImageListing:
    """The image files below a folder.

    Attributes:
      files: images that have a class, sorted by name.
      num_unlisted: images that the labels do not name.
      others: names of files that are no images, by their endings.
      hidden: names of images that are hidden, or lie in a folder that is hidden or of another program.
      merged: classes whose folders have several spellings (see `class_name`), sorted.
    """

    files: tuple[ImageFile, ...]
    num_unlisted: int = 0
    others: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()

    @property
    def num_other_files(self) -> int:
        """Files that were left out by their names."""
        return len(self.others) + len(self.hidden)

    @property
    def left_out_texts(self) -> list[str]:
        """The files that were left out by name: how many, of which kind, an example."""
        return [
            f"{len(names)} left out by name, {what}: {_counts(map(kind, names))}; such as {names[0]}"
            for names, what, kind in (
                (self.others, f"which does not end with {', '.join(SUFFIXES)}", _ending),
                (self.hidden, "which is hidden, or of a hidden folder", _hidden_part),
            )
            if names
        ]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @functools.cached_property
    def files_per_class(self) -> dict[str, int]:
        return dict(sorted(Counter(file.label for file in self.files).items()))

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of names, classes, sizes and times. A name may hold anything but a zero byte."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.name}\0{file.label}\0{file.size_bytes}\0{file.mtime_s!r}\n".encode())
        return digest.hexdigest()


def shown(found: Iterable[FoundFile]) -> list[FoundFile]:
    """The images among files, sorted by name, without those that are hidden or that another program keeps there."""
    return sorted(file for file in found if _is_image(file) and not _hidden_part(file.name))


def _is_image(file: FoundFile) -> bool:
    return file.name.lower().endswith(SUFFIXES)


def listed(
    found: Sequence[FoundFile], labels: Mapping[str, str] | None, image_dir: str, labels_csv: str
) -> ImageListing:
    """The images of a folder with their classes.

    Args:
      found: all files below it, in any order.
      labels: class by name; None for the name of the folder that each lies in.
      image_dir: for errors.
      labels_csv: for errors.

    Raises:
      BadDataError: an image lies in no folder that could name its class, or has a name that is no text.
      MissingInputError: labels name a file that is not there.
      SettingsError: labels name a file twice.
    """
    images = sorted(file for file in found if _is_image(file))
    others = tuple(sorted(printable(file.name) for file in found if not _is_image(file)))
    hidden = {file.name for file in images if _hidden_part(file.name)}
    if labels is None:
        candidates = shown(found)
        _require_printable(candidates, image_dir)
        return _by_folder(candidates, others, tuple(sorted(map(printable, hidden))), image_dir)
    _require_printable(images, image_dir)
    num_labels = len(labels)
    labels, missing = _by_file(labels, [file.name for file in images], labels_csv)
    if missing:
        raise MissingInputError(
            f"{len(missing)} of its {num_labels} files are no images below {image_dir}, such as {missing[0]}",
            place=labels_csv,
            next_step=f"Paths are those below --image_dir, and end with {', '.join(SUFFIXES)}",
        )
    files = tuple(_labelled(file, labels[file.name]) for file in images if file.name in labels)
    hidden -= labels.keys()
    return ImageListing(files, len(images) - len(files) - len(hidden), others, tuple(sorted(hidden)))


def _labelled(file: FoundFile, label: str) -> ImageFile:
    return ImageFile(file.name, file.size_bytes, file.mtime_s, label, file.special)


def _require_printable(images: Sequence[FoundFile], image_dir: str) -> None:
    for file in images:
        if printable(file.name) != file.name:
            raise BadDataError(
                "its name is not UTF-8", place=f"{image_dir}/{printable(file.name)}", next_step="Rename it"
            )


def _hidden_part(name: str) -> str:
    """The first part of a path that is hidden or of another program; "" if there is none.

    A hidden file is given as `.*`, not by its name: there may be a million of them.
    """
    *folders, last = name.split("/")
    found = next((folder for folder in folders if folder.startswith(".") or folder in _LITTER), "")
    return found or (".*" if last.startswith(".") else "")


def _ending(name: str) -> str:
    last = name.rpartition("/")[2]
    return f".{last.rpartition('.')[2].lower()}" if "." in last[1:] else "without an ending"


def _counts(kinds: Iterable[str]) -> str:
    """The number of each kind, the most frequent first."""
    counts = Counter(kinds)
    told = [f"{kind} × {count}" for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join(told[:_NUM_TOLD]) + (f" and {len(told) - _NUM_TOLD} more kinds" if told[_NUM_TOLD:] else "")


def _by_folder(
    images: Sequence[FoundFile], others: tuple[str, ...], hidden: tuple[str, ...], image_dir: str
) -> ImageListing:
    """The images, each of the class that its folder names."""
    spellings = {file.name: file.name.split("/")[-2] if "/" in file.name else "" for file in images}
    nowhere = [name for name, label in spellings.items() if not class_name(label)]
    if nowhere:
        raise BadDataError(
            f"{len(nowhere)} images lie in no folder that names their class, such as {nowhere[0]}",
            place=image_dir,
            next_step="Move them into folders, or give --labels_csv",
        )
    num_spellings = Counter(class_name(label) for label in set(spellings.values()))
    merged = tuple(sorted(label for label, count in num_spellings.items() if count > 1))
    files = tuple(_labelled(file, class_name(spellings[file.name])) for file in images)
    return ImageListing(files, 0, others, hidden, merged)


def _by_file(labels: Mapping[str, str], names: Sequence[str], labels_csv: str) -> tuple[dict[str, str], list[str]]:
    """The labels by the files' own names, and those of no file, sorted.

    If no file has exactly a label's name, one matches whose name differs only in Unicode composition or blanks.

    Raises:
      SettingsError: two labels are for one file.
    """
    exact = set(names)
    by_path: dict[str, list[str]] = {}
    for name in names:
        by_path.setdefault(_path(name), []).append(name)
    found: dict[str, str] = {}
    missing = []
    for name, label in labels.items():
        own = [name] if name in exact else by_path.get(_path(name), [])
        if len(own) != 1:
            missing.append(name)
        elif own[0] in found:
            raise SettingsError(f"{own[0]} is there twice", place=labels_csv, next_step="Write it once")
        else:
            found[own[0]] = label
    return found, sorted(missing)


def _path(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def parse_labels(text: str, place: str) -> dict[str, str]:
    """The classes of a CSV file of two columns, path and class.

    A first row whose path does not end like an image's is a header.

    Raises:
      SettingsError: another number of columns, an empty class, or a path that is there twice.
    """
    labels: dict[str, str] = {}
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    try:
        for number, row in enumerate(rows):
            if not row:
                continue
            name, label = row if len(row) == _LABELS_COLUMNS else (row[0], "")
            name, label = name.strip().removeprefix("./"), class_name(label)
            if number == 0 and not name.lower().endswith(SUFFIXES):
                continue
            if not label:
                raise _bad_labels(f"expected a path and a class, found {','.join(row)!r}", place, rows.line_num)
            if name in labels:
                raise _bad_labels(f"{name} is there twice", place, rows.line_num)
            labels[name] = label
    except csv.Error as error:
        raise _bad_labels(str(error), place, rows.line_num) from error
    if not labels:
        raise SettingsError("names no images", place=place, next_step="Write a path and a class into each line")
    return labels


def _bad_labels(fact: str, place: str, line: int) -> SettingsError:
    return SettingsError(fact, place=f"{place}, line {line}", next_step="Write a path and a class into each line, once")


def changes(listing: ImageListing, num_files: int, size_bytes: int, files_per_class: Mapping[str, int]) -> list[str]:
    """The changes since these numbers were stored, in words; for a listing whose digest has changed."""
    now = listing.files_per_class
    words = [
        f"{label} has {now.get(label, 0)} images, had {files_per_class.get(label, 0)}"
        for label in sorted(now.keys() | files_per_class.keys())
        if now.get(label, 0) != files_per_class.get(label, 0)
    ]
    if listing.size_bytes != size_bytes:
        words.append(f"its images have {listing.size_bytes} bytes, had {size_bytes}")
    return words or [f"names, classes or times of its {num_files} images are others"]


def deal(files: Sequence[ImageFile], target_bytes: int) -> list[tuple[ImageFile, ...]]:
    """The files of each shard: every shard has its share of every class, in an order that mixes them.

    By name a shard would hold one class, and what reads some shards at a time would see one class after the other. So
    the files of a class are dealt to the shards in turn, and a shard's files are ordered by a hash of their names. By
    the same hash the files of a class are chosen, so that shards get about as many bytes.

    Args:
      files: not empty.
      target_bytes: of a shard; there are at least `MIN_SHARDS`, or one a file if there are fewer.
    """
    total_bytes = sum(file.size_bytes for file in files)
    num_groups = max(-(-total_bytes // target_bytes), min(MIN_SHARDS, len(files)))
    mixed = sorted(files, key=_hash)
    by_class = sorted(mixed, key=lambda file: file.label)  # a stable sort
    return [tuple(sorted(by_class[first::num_groups], key=_hash)) for first in range(min(num_groups, len(files)))]


def _hash(file: ImageFile) -> bytes:
    return hashlib.blake2b(file.name.encode("utf-8"), digest_size=16).digest()
