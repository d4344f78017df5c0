"""The classes of a classifier: class id ↔ character ↔ GNT tag, in a fixed order, with a digest.

A class of GNT files is one character. One of image folders may have a name of any length, and then has no tag; where it
is a single character it is the same class as GNT's.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import gnt

LEVEL1_SIZE = 3755
_LEVEL1_ROWS = range(16, 56)
_COLUMNS = range(1, 95)


@dataclass(frozen=True)
class Charset:
    """The characters, or names, in the order of their class ids.

    Raises:
      SettingsError: none, one of them twice, or a name that is empty or has a line end in it.
    """

    characters: tuple[str, ...]

    def __post_init__(self) -> None:
        _check(self.characters, place="charset")

    def __len__(self) -> int:
        return len(self.characters)

    @functools.cached_property
    def class_ids(self) -> Mapping[str, int]:
        """Class id of each character."""
        return {character: class_id for class_id, character in enumerate(self.characters)}

    @functools.cached_property
    def tags(self) -> tuple[bytes, ...]:
        """The GNT tag of each class.

        Raises:
          SettingsError: one has none: no GNT file can hold it.
        """
        _check_tags(self.characters, place="charset")
        return tuple(gnt.encode_tag(character) for character in self.characters)

    @functools.cached_property
    def class_ids_by_tag(self) -> Mapping[bytes, int]:
        """Class id of each tag: what conversion looks up for each record."""
        return {tag: class_id for class_id, tag in enumerate(self.tags)}

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the characters in order, in UTF-8; of names one a line, behind two line ends.

        No characters give the bytes of such a text, since each is there once.
        """
        names = self.characters
        text = "".join(names) if _are_characters(names) else "\n\n" + "\n".join(names)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    @property
    def sequence(self) -> str | list[str]:
        """All names as a JSON value, indexed by class id: a text if each is one character, else a list."""
        names = self.characters
        return "".join(names) if _are_characters(names) else list(names)

    def to_json(self) -> dict[str, Any]:
        classes = [
            {"id": class_id, "character": character, "tag": _tag(character)}
            for class_id, character in enumerate(self.characters)
        ]
        return {"classes": classes, "digest": self.digest, "num_classes": len(self)}

    @staticmethod
    def from_json(value: Any, place: str = "charset.json") -> Charset:
        """The inverse of `to_json`.

        Raises:
          BadDataError: not such a value, or one that was changed by hand: the digest does not fit.
        """
        try:
            classes = sorted(value["classes"], key=lambda row: row["id"])
            names = tuple(row["character"] for row in classes)
            if not all(isinstance(name, str) for name in names):
                raise ValueError("a class has a name that is no text")
            charset = Charset(names)
            expected = charset.to_json()
            fits = classes == expected["classes"] and value["digest"] == expected["digest"]
        except (KeyError, TypeError, ValueError, SettingsError) as error:
            raise BadDataError(f"not a charset: {error}", place=place, next_step="Convert into a new folder") from error
        if not fits:
            raise BadDataError(
                f"its classes do not fit its digest {str(value['digest'])[:12]}…",
                place=place,
                next_step="It has been changed since it was written: restore it, or convert into a new folder",
            )
        return charset


def level1(size: int = LEVEL1_SIZE) -> Charset:
    """The first `size` of GB2312's level 1: 3,755 common characters in the order of pinyin, rows 16 to 55."""
    cells = (bytes((0xA0 + row, 0xA0 + column)) for row in _LEVEL1_ROWS for column in _COLUMNS)
    # Row 55 ends five cells early: 39 rows of 94, and one of 89.
    return Charset(tuple(cell.decode("gb2312") for cell, _ in zip(cells, range(LEVEL1_SIZE), strict=False))[:size])


def from_file(text: str, place: str = "charset file") -> Charset:
    """The characters of a text in their order; whitespace, line ends and a byte order mark do not count.

    Raises:
      SettingsError: no characters, one of them twice, or one that no GNT tag can hold.
    """
    characters = tuple("".join(text.removeprefix("\ufeff").split()))
    _check(characters, place)
    _check_tags(characters, place)
    return Charset(characters)


def class_name(text: str) -> str:
    """A class's name in its normal form: composed (NFC), since file systems differ in that, and without outer blanks.

    A single character stays unchanged: NFC would replace compatibility ideographs, which GNT files may hold.
    """
    name = text.strip()
    return name if len(name) == 1 else unicodedata.normalize("NFC", name)


def from_lines(text: str, place: str = "charset file") -> Charset:
    """The names of a text (see `class_name`), one a line, in their order; blank lines and a BOM do not count.

    Raises:
      SettingsError: no names, or one of them twice.
    """
    lines = (class_name(line) for line in text.removeprefix("\ufeff").splitlines())
    names = tuple(line for line in lines if line)
    _check(names, place)
    return Charset(names)


def from_characters(characters: Iterable[str]) -> Charset:
    """The distinct characters or names, sorted, so that the same data gives the same class ids."""
    return Charset(tuple(sorted(set(characters))))


def _are_characters(names: tuple[str, ...]) -> bool:
    return all(len(name) == 1 for name in names)


def _check(names: tuple[str, ...], place: str) -> None:
    if not names:
        raise SettingsError("holds no characters", place=place, next_step="Write the characters into it, in UTF-8")
    seen: set[str] = set()
    for position, name in enumerate(names, start=1):
        if name in seen:
            raise SettingsError(
                f"character {position}, {name!r}, is there twice",
                place=place,
                next_step="Remove one of them: each class has one character",
            )
        seen.add(name)
        if not name or (name.splitlines() != [name] and not _are_characters(names)):
            raise SettingsError(
                f"class {position}, {name!r}, is empty or has a line end in it",
                place=place,
                next_step="Give it another name",
            )


def _check_tags(characters: tuple[str, ...], place: str) -> None:
    for position, character in enumerate(characters, start=1):
        try:
            gnt.encode_tag(character)
        except ValueError as error:
            raise SettingsError(
                f"character {position}: {error}", place=place, next_step="Remove it: no GNT file can hold it"
            ) from error


def _tag(name: str) -> str | None:
    try:
        return gnt.encode_tag(name).hex()
    except ValueError:
        return None
