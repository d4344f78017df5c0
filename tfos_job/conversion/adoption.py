"""The shards of a split in a folder of TFRecords that others have written, by their names. Pure.

TF-Slim's programs write `train-00000-of-01024`, `flowers_train_00000-of-00005.tfrecord` and `mnist_train.tfrecord`;
TensorFlow Datasets writes `name-train.tfrecord-00000-of-00002`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tfos_job.conversion.dataset import some
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.layout import join, printable
from tfos_job.storage import Entry

_NUMBERED = re.compile(r"(?P<stem>.+?)[-_.](?P<index>\d+)-of-(?P<count>\d+)(?:\.(?:tfrecords?|record))?")
_ALONE = re.compile(r"(?P<stem>.+)\.(?:tfrecords?|record)")
_ENDINGS = (".tfrecord", ".tfrecords", ".record")


@dataclass(frozen=True)
class _Named:
    """A file whose name is that of a shard: `series` is all of it but for the number, `split` its last word."""

    entry: Entry
    series: str
    index: int | None
    count: int


def shards_of(entries: Sequence[Entry], split_name: str, tfrecord_dir: str) -> tuple[Entry, ...]:
    """The shards of a split, in order.

    Args:
      entries: what is in the folder.
      split_name: of `--dataset_split_name`.
      tfrecord_dir: the folder, for errors.

    Raises:
      MissingInputError: none, or not all that their names speak of.
      SettingsError: files of two datasets, or two sets of shards, have this split's name.
      BadDataError: a shard is no file.
    """
    named = list(_named(entries))
    mine = [file for file in named if _is_of(file.series, split_name)]
    if not mine:
        raise MissingInputError(
            f"no shards of a split {split_name!r}; {_others(named, entries)}",
            place=tfrecord_dir,
            next_step="Check --tfrecord_dir and --dataset_split_name: shards are files such as "
            f"{split_name}-00000-of-00016 or NAME_{split_name}_00000-of-00016.tfrecord, in the folder itself",
        )
    _require_one_series(mine, tfrecord_dir)
    for file in mine:
        if file.entry.is_dir or file.entry.special:
            fact = f"{file.entry.special or 'a folder'}, not a file"
            raise BadDataError(fact, place=file.entry.path, next_step="Move it away, or put the shard in its place")
    return tuple(file.entry for file in sorted(mine, key=lambda file: file.index or 0))


def num_others(entries: Sequence[Entry], own_names: Sequence[str]) -> int:
    """The number of files that are no shards of any split, and not ours."""
    shards = {file.entry.name for file in _named(entries)}
    return sum(not entry.is_dir and entry.name not in shards and entry.name not in own_names for entry in entries)


def _named(entries: Sequence[Entry]) -> Iterator[_Named]:
    for entry in entries:
        if entry.name.startswith(("_", ".")) or printable(entry.name) != entry.name:
            continue
        if match := _NUMBERED.fullmatch(entry.name):
            yield _Named(entry, _stem(match["stem"]), int(match["index"]), int(match["count"]))
        elif match := _ALONE.fullmatch(entry.name):
            yield _Named(entry, match["stem"], None, 1)


def _stem(text: str) -> str:
    for ending in _ENDINGS:
        text = text.removesuffix(ending)
    return text


def _is_of(series: str, split_name: str) -> bool:
    return series == split_name or series.endswith((f"_{split_name}", f"-{split_name}"))


def _others(named: Sequence[_Named], entries: Sequence[Entry]) -> str:
    series = sorted({file.series for file in named})
    if series:
        return f"it has shards of {some(series)}"
    names = [printable(entry.name) + "/" * entry.is_dir for entry in entries]
    return f"it holds {some(names)}" if names else "it is empty"


def _require_one_series(mine: Sequence[_Named], tfrecord_dir: str) -> None:
    """Raises unless the files are the shards 0 to N-1 of N, each once."""
    for what, values in (
        ("datasets", sorted({file.series for file in mine})),
        ("sets of shards, which say of", sorted({f"{file.count}" for file in mine if file.index is not None}, key=int)),
    ):
        if len(values) > 1:
            raise SettingsError(
                f"shards of this split are there of {len(values)} {what} {some(values)}",
                place=tfrecord_dir,
                next_step="Move all but one away, or link one into a folder of its own",
            )
    by_index: dict[int, list[str]] = {}
    for file in mine:
        by_index.setdefault(file.index or 0, []).append(file.entry.name)
    for names in by_index.values():
        if len(names) > 1:
            next_step = "Move one of them away: its records would be there twice"
            raise SettingsError(
                f"one shard under two names: {some(sorted(names))}", place=tfrecord_dir, next_step=next_step
            )
    count = mine[0].count
    missing = [index for index in range(count) if index not in by_index]
    beyond = sorted(index for index in by_index if index >= count)
    first = min(mine, key=lambda file: file.index or 0).entry.name
    if missing or beyond:
        if beyond:
            fact = f"shard {beyond[0]} of {count} cannot be: numbers begin at 0"
        else:
            fact = (
                f"{len(missing)} of its {count} shards are missing: {some([_name(first, index) for index in missing])}"
            )
        next_step = "Copy them here, or write the dataset again"
        raise MissingInputError(
            fact, place=join(tfrecord_dir, by_index[beyond[0]][0]) if beyond else tfrecord_dir, next_step=next_step
        )


def _name(first: str, index: int) -> str:
    """A shard's name, after that of another one."""
    return re.sub(r"\d+(?=-of-\d+)", lambda found: str(index).zfill(len(found[0])), first, count=1)
