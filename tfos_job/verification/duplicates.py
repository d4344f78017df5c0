"""Search for duplicate records: 128-bit keys in numpy arrays, in buckets so that no process holds all of them.

A key decides its bucket, so equal keys meet there whichever shards they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfos_job.verification.findings import Findings

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ divided by the golden ratio: neighbours are spread out


@dataclass(frozen=True)
class KeyTable:
    """Keys of records, and the places of the records.

    Attributes:
      keys: [n, 2] uint64.
      shards: [n] uint32, the number of the shard that holds the record.
      offsets: [n] uint64, byte of the record in it.
    """

    keys: npt.NDArray[np.uint64]
    shards: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.uint64]

    @staticmethod
    def of_shard(number: int, keys: npt.NDArray[np.uint64], offsets: Sequence[int]) -> KeyTable:
        return KeyTable(keys, np.full(len(offsets), number, np.uint32), np.array(offsets, np.uint64))

    def __len__(self) -> int:
        return len(self.shards)

    def take(self, rows: npt.NDArray) -> KeyTable:
        return KeyTable(self.keys[rows], self.shards[rows], self.offsets[rows])

    def deal(self, num_buckets: int) -> Iterator[tuple[int, KeyTable]]:
        """The rows of each bucket that gets any."""
        if not len(self):
            return
        mixed = (self.keys[:, 0] ^ self.keys[:, 1] * _MIX) * _MIX >> np.uint64(32)
        buckets = mixed % np.uint64(num_buckets)
        order = np.argsort(buckets, kind="stable")
        found, starts = np.unique(buckets[order], return_index=True)
        for bucket, rows in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
            yield bucket, self.take(rows)


def repeats(tables: Iterable[KeyTable]) -> tuple[KeyTable, KeyTable]:
    """Pairs of records with equal keys: row i of the first table and row i of the second.

    Of n records with one key there are n - 1 pairs, of those that follow one another in the order of shards and bytes.
    """
    parts = list(tables)
    if not parts:
        empty = KeyTable(np.empty((0, 2), np.uint64), np.empty(0, np.uint32), np.empty(0, np.uint64))
        return empty, empty
    whole = KeyTable(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.shards for part in parts]),
        np.concatenate([part.offsets for part in parts]),
    )
    del parts
    order = np.lexsort((whole.offsets, whole.shards, whole.keys[:, 1], whole.keys[:, 0]))
    keys = whole.keys[order]
    equal = np.flatnonzero((keys[1:] == keys[:-1]).all(1))
    return whole.take(order[equal]), whole.take(order[equal + 1])


@dataclass(frozen=True)
class Repeats:
    """Duplicate records: findings, and the counts of those that are no fault.

    Attributes:
      within: for each split the number of records whose pixels an earlier one of it has, and two places as an example.
    """

    findings: Findings
    within: dict[str, tuple[int, str]]


def check_repeats(
    pixels: Sequence[KeyTable], places: Sequence[KeyTable], files: Sequence[str], splits: Sequence[str]
) -> Repeats:
    """The duplicate records of one bucket.

    Args:
      pixels: keys are digests of pixels.
      places: keys are a source's number and a byte in it.
      files: of each shard, below the dataset's folder.
      splits: of each shard.
    """
    findings = Findings()

    def place(table: KeyTable, row: int) -> str:
        return f"{files[int(table.shards[row])]}, byte {table.offsets[row]}"

    first, second = repeats(places)
    for row in range(len(first)):
        fact = f"the same place in the same source file as {place(first, row)}"
        findings.add("repeated_record", files[int(second.shards[row])], fact, int(second.offsets[row]))
    first, second = repeats(pixels)
    within: dict[str, tuple[int, str]] = {}
    for row in range(len(first)):
        split, other = splits[int(second.shards[row])], splits[int(first.shards[row])]
        if split != other:
            fact = f"the same pixels as {place(first, row)}, of split {other}"
            findings.add("shared_pixels", files[int(second.shards[row])], fact, int(second.offsets[row]))
        else:
            count, example = within.get(split, (0, ""))
            within[split] = count + 1, example or f"{place(second, row)}, and {place(first, row)}"
    return Repeats(findings, within)


def sum_repeats(found: Sequence[Repeats]) -> Findings:
    """The repeats of all buckets, with a warning for each split that holds the same pixels twice."""
    findings = Findings()
    findings.extend(part.findings for part in found)
    for split in sorted({split for part in found for split in part.within}):
        parts = [part.within[split] for part in found if split in part.within]
        count = sum(number for number, _ in parts)
        fact = f"{count} of its records have the pixels of another one: such as {parts[0][1]}"
        findings.add("repeated_pixels", split, fact, count=count)
    return findings
