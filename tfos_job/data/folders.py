"""Folders of images: which file is of which class, whether anything has changed, and which shard each goes to. Pure."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tfos_job.data.charset import class_name
from tfos_job.data.plan import MIN_SHARDS
from tfos_job.errors import BadDataError, MissingInputError, SettingsError

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif")
"""Of the names that are images, in lower case."""
_APPLE_DOUBLE = "._"
"""What begins the name of a file that macOS keeps beside another one; its end is that of the other's name."""
_LABELS_COLUMNS = 2


class FoundFile(NamedTuple):
    """A file; `name` is its path below `--image_dir`."""

    name: str
    size_bytes: int
    mtime_s: float


class ImageFile(NamedTuple):
    """An image file and the name of its class."""

    name: str
    size_bytes: int
    mtime_s: float
    label: str


@dataclass(frozen=True)
class Listing:
    """What is in a folder.

    Attributes:
      files: images that have a class, sorted by name.
      num_unlisted: images that the labels do not name.
      num_other_files: files that are no images, by their names.
      merged: classes that folders of several spellings are of (see `class_name`), sorted.
    """

    files: tuple[ImageFile, ...]
    num_unlisted: int = 0
    num_other_files: int = 0
    merged: tuple[str, ...] = ()

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


def listed(found: Sequence[FoundFile], labels: Mapping[str, str] | None, image_dir: str, labels_csv: str) -> Listing:
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
    images = sorted(file for file in found if _is_image(file.name))
    num_other_files = len(found) - len(images)
    for file in images:
        if any("\ud800" <= character <= "\udfff" for character in file.name):
            raise BadDataError("its name is not UTF-8", place=f"{image_dir}/{file.name!a}", next_step="Rename it")
    if labels is None:
        return _by_folder(images, num_other_files, image_dir)
    num_labels = len(labels)
    labels, missing = _by_file(labels, [file.name for file in images], labels_csv)
    if missing:
        raise MissingInputError(
            f"{len(missing)} of its {num_labels} files are no images below {image_dir}, such as {missing[0]}",
            place=labels_csv,
            next_step=f"Paths are those below --image_dir, and end with {', '.join(SUFFIXES)}",
        )
    files = tuple(ImageFile(*file, labels[file.name]) for file in images if file.name in labels)
    return Listing(files, len(images) - len(files), num_other_files)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(_APPLE_DOUBLE)


def _by_folder(images: Sequence[FoundFile], num_other_files: int, image_dir: str) -> Listing:
    """Each image is of the class that its folder is named for."""
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
    files = tuple(ImageFile(*file, class_name(spellings[file.name])) for file in images)
    return Listing(files, 0, num_other_files, merged)


def _by_file(labels: Mapping[str, str], names: Sequence[str], labels_csv: str) -> tuple[dict[str, str], list[str]]:
    """The labels by the files' own names, and those of no file, sorted.

    Where no file has just that name it may be written in another way: composed or not, and without blanks around it.

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


def changes(listing: Listing, num_files: int, size_bytes: int, files_per_class: Mapping[str, int]) -> list[str]:
    """In words, in what a listing of another digest is not the one of these numbers; the first words say the most."""
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
      target_bytes: of a shard; there are at least `MIN_SHARDS`, or one a file where there are fewer.
    """
    total_bytes = sum(file.size_bytes for file in files)
    num_groups = max(-(-total_bytes // target_bytes), min(MIN_SHARDS, len(files)))
    mixed = sorted(files, key=_hash)
    by_class = sorted(mixed, key=lambda file: file.label)  # a stable sort
    return [tuple(sorted(by_class[first::num_groups], key=_hash)) for first in range(min(num_groups, len(files)))]


def _hash(file: ImageFile) -> bytes:
    return hashlib.blake2b(file.name.encode("utf-8"), digest_size=16).digest()
