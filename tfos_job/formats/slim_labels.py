"""The classes of a TF-Slim dataset: its label file, and the name of each class id. Pure.

Class ids are the labels as they are in the records, since these are not written again. So where labels begin at 1, as
ImageNet's do, there is a class 0 without records, as with TF-Slim.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfos_job.errors import SettingsError
from tfos_job.formats.charset import class_name
from tfos_job.formats.slim import MAX_LABEL

LABELS_FILE = "labels.txt"
"""The label file's name where TF-Slim writes it, beside the shards."""
BACKGROUND = "background"
_NUMBERED = re.compile(r"\s*(\d+)\s*:(.*)")
_FORMS = "Write ID:NAME into each line, as TF-Slim does, or the names alone, one a line"


@dataclass(frozen=True)
class LabelFile:
    """A label file.

    Attributes:
      names: by id; of a list of names alone, by line.
      is_numbered: each line is `ID:NAME`.
      place: of the file, for messages.
    """

    names: Mapping[int, str]
    is_numbered: bool
    place: str


@dataclass(frozen=True)
class FoundLabels:
    """The labels of a split's records.

    Attributes:
      counts: records by label.
      texts: `image/class/text` by label, of those labels whose records all have the same.
    """

    counts: Mapping[int, int]
    texts: Mapping[int, str]


@dataclass(frozen=True)
class SlimClasses:
    """The classes of a dataset.

    Attributes:
      names: by class id, each once.
      unknown: labels of records that are no class.
      warnings: what somebody should look at, in words.
    """

    names: tuple[str, ...]
    unknown: tuple[int, ...]
    warnings: tuple[str, ...]


def parse_labels(text: str, place: str) -> LabelFile:
    """The names in a label file. Blank lines and a byte order mark do not count.

    Raises:
      SettingsError: no names, lines of both forms, an id twice, or an empty name.
    """
    lines = [(number, line) for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1) if line.strip()]
    if not lines:
        raise SettingsError("names no classes", place=place, next_step=_FORMS)
    matches = [_NUMBERED.fullmatch(line) for _, line in lines]
    is_numbered = matches[0] is not None
    names: dict[int, str] = {}
    for (number, line), match in zip(lines, matches, strict=True):
        if (match is not None) != is_numbered:
            raise SettingsError(
                f"{line.strip()!r} is {'a name alone' if is_numbered else 'ID:NAME'}, unlike the lines before it",
                place=f"{place}, line {number}",
                next_step=_FORMS,
            )
        class_id = int(match[1]) if match else len(names)
        name = class_name(match[2] if match else line)
        if class_id > MAX_LABEL or class_id in names or not name:
            fact = f"{class_id} is larger than {MAX_LABEL}" if class_id > MAX_LABEL else f"id {class_id} is there twice"
            raise SettingsError(
                fact if name else "the name is empty", place=f"{place}, line {number}", next_step=_FORMS
            )
        names[class_id] = name
    return LabelFile(names, is_numbered, place)


def classes_of(found: FoundLabels, labels: LabelFile | None, known: Sequence[str] | None) -> SlimClasses:
    """The name of each class id.

    A list of names alone may begin with the name of label 0, or with that of label 1, as the list that ImageNet's
    records are built from does. The dataset's classes decide, if it has some, then the texts in the records, then
    whether there is a label that is too large for the list.

    Args:
      found: the labels of the split's records.
      labels: the label file; None without one.
      known: the classes of the dataset's other splits; None if it has none.

    Raises:
      SettingsError: the label file has other names than the dataset.
    """
    if labels is None:
        names, warnings = (dict(enumerate(known)), ()) if known is not None else _without_file(found)
    elif labels.is_numbered:
        names, warnings = dict(labels.names), ()
    else:
        names, warnings = _of_list(found, labels, known)
    unknown = tuple(sorted(label for label in found.counts if label not in names))
    if 0 not in names and names:
        names[0] = BACKGROUND
        warnings = (*warnings, f"no name is given for label 0: class 0 is {BACKGROUND!r}, and has no records")
    filled = distinct([names.get(class_id, str(class_id)) for class_id in range(max(names, default=-1) + 1)])
    if known is not None and filled != tuple(known):
        assert labels is not None
        raise _other_names(filled, known, labels.place)
    if labels is not None:
        warnings = (*warnings, *_text_warnings(found, names, labels.place))
    return SlimClasses(filled, unknown, warnings)


def _without_file(found: FoundLabels) -> tuple[dict[int, str], tuple[str, ...]]:
    """Names by the texts in the records, if each label has its own, else the labels themselves."""
    labels = sorted(found.counts)
    if labels and all(label in found.texts for label in labels):
        names = {label: class_name(found.texts[label]) for label in labels}
        return names, ("there is no label file: classes are named by image/class/text of their records",)
    return {label: str(label) for label in labels}, (
        "there is no label file, and image/class/text does not name each label: classes are named by their numbers",
    )


def _of_list(
    found: FoundLabels, labels: LabelFile, known: Sequence[str] | None
) -> tuple[dict[int, str], tuple[str, ...]]:
    """The names of a list without ids, by label."""
    plain = dict(labels.names)
    shifted = {0: BACKGROUND} | {label + 1: name for label, name in plain.items()}
    if known is not None:
        is_shifted = tuple(known) == distinct([shifted[label] for label in range(len(shifted))])
        return (shifted if is_shifted else plain), ()
    votes, shifted_votes = (
        sum(class_name(text) == names.get(label) for label, text in found.texts.items()) for names in (plain, shifted)
    )
    last = len(plain)
    if shifted_votes > votes or (shifted_votes == votes and 0 not in found.counts and last in found.counts):
        return shifted, (
            f"labels of records are 1 to {last}, so the first name of {labels.place} is that of label 1; class 0 is "
            f"{BACKGROUND!r}, and has no records",
        )
    if 0 not in found.counts and shifted_votes == votes:
        return plain, (
            f"no record has label 0, which is taken for the first name of {labels.place}, {plain[0]!r}; if that is the "
            f"name of label 1, write its lines as ID:NAME",
        )
    return plain, ()


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with the class id behind those that are there twice (of ImageNet's, two are `crane`)."""
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({class_id})" for class_id, name in enumerate(names))


def _text_warnings(found: FoundLabels, names: Mapping[int, str], place: str) -> tuple[str, ...]:
    """A word about labels that records name in another way, as they do where the label file is off by one."""
    texts = {label: class_name(text) for label, text in found.texts.items()}
    others = [label for label, text in sorted(texts.items()) if names.get(label) not in (text, None)]
    if not others:
        return ()
    first = others[0]
    fact = f"label {first} is {names[first]!r} in {place}, and {texts[first]!r} in image/class/text of its records"
    for offset in (1, -1):
        if sum(names.get(label - offset) == texts[label] for label in others) * 2 > len(others):
            return (f"{place} seems to be off by one against the records, for {len(others)} labels: {fact}",)
    return (f"{len(others)} labels have another name in the records: {fact}",)


def _other_names(names: Sequence[str], known: Sequence[str], place: str) -> SettingsError:
    differing = next((i for i, pair in enumerate(zip(names, known, strict=False)) if pair[0] != pair[1]), None)
    if differing is None:
        fact = f"names {len(names)} classes, the dataset has {len(known)}"
    else:
        fact = f"class {differing} is {names[differing]!r}, in the dataset it is {known[differing]!r}"
    return SettingsError(
        fact,
        place=place,
        next_step="Give the dataset's own --labels, or another --dataset_dir; a dataset of one split takes other "
        "classes with --overwrite",
    )
