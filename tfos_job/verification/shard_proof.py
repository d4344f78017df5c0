"""The proof of a shard: the executors' side of `verify`.

Checked are both checksums of each record, its Example, the image, the class, and the place in a source file that it
names. A fault is a finding, and the reading goes on. No TensorFlow, no pyspark.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tfos_job import storage
from tfos_job.errors import MissingInputError
from tfos_job.formats import image_files, png, slim
from tfos_job.formats.example_reader import Example, ExampleReader
from tfos_job.formats.gnt import HEADER, MAX_SIDE
from tfos_job.formats.hashing import HashingReader
from tfos_job.formats.manifest_parts import Shard
from tfos_job.formats.slim import SlimRecord
from tfos_job.verification import adopted_picture
from tfos_job.verification.duplicates import KeyTable
from tfos_job.verification.findings import Findings
from tfos_job.verification.record_scan import BLOCK_BYTES, scan

_DIGEST_BYTES = 16  # of a SHA-256: by chance two of 2³² records share one in one of 2⁶⁵ datasets
_read_example = ExampleReader().read  # one for the process: its cache holds for all shards


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to prove.

    Attributes:
      number: of the shard among all that are proved.
      path: of the file.
      file: its path below the dataset's folder, for findings.
      shard: its entry in the manifest.
      image_format: of all its records, or `keep` for any of `image_files.STORED_FORMATS`.
      of_pictures: whether its images are picture files, grey or coloured; else grey glyphs.
      is_adopted: its records are another program's.
      characters: the charset, by class id; empty if it is not known.
      sources: the files that it may hold records of: for each name a number and a size in bytes. None where the
        manifest names none, as for a split that was made from a DataFrame.
    """

    number: int
    path: str
    file: str
    shard: Shard
    image_format: str
    characters: tuple[str, ...]
    sources: Mapping[str, tuple[int, int]] | None
    of_pictures: bool = False
    is_adopted: bool = False


@dataclass(kw_only=True)
class ShardReport:
    """The findings and the counts of a shard.

    Attributes:
      num_records: with or without a fault.
      whole: each record could be counted; else counts are lower bounds.
    """

    number: int
    size_bytes: int = 0
    sha256: str = ""
    num_records: int = 0
    whole: bool = True
    class_counts: dict[int, int] = field(default_factory=dict)
    source_counts: dict[str, int] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)


@dataclass(frozen=True)
class ShardProof:
    """A report, the digests of the records' pixels, and the places in source files that they name."""

    report: ShardReport
    pixels: KeyTable
    places: KeyTable


def verify_shard(task: ShardTask) -> ShardProof:
    """Reads a shard to its end.

    Raises:
      JobError: it cannot be read for another reason than that it is not there.
    """
    prover = _Prover(task)
    try:
        with storage.open_read(task.path) as stream:
            prover.read(HashingReader(stream))
    except MissingInputError:
        prover.fault("missing_shard", None, f"expected {task.shard.size_bytes} bytes, found no file")
    return prover.proof()


class _Prover:
    """Counts, and notes findings, while one shard is read."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._report = ShardReport(number=task.number)
        self._texts = {label: character.encode("utf-8") for label, character in enumerate(task.characters)}
        self._formats = [
            name.encode("ascii")
            for name in (image_files.STORED_FORMATS if task.image_format == "keep" else (task.image_format,))
        ]
        self._sources = {name.encode("utf-8"): value for name, value in (task.sources or {}).items()}
        self._labels: list[int] = []
        self._digests: list[bytes] = []
        self._sides: list[int] = []
        self._digest_offsets: list[int] = []
        self._numbers: dict[bytes, int] = {}
        self._places: list[tuple[int, int]] = []
        self._place_offsets: list[int] = []
        self._origins: list[bytes] = []

    def fault(self, kind: str, offset: int | None, fact: str) -> None:
        """Notes a fault because of which this record, or all that follow, cannot be counted."""
        self._report.whole = False
        self._report.findings.add(kind, self._task.file, fact, offset)

    def read(self, stream: HashingReader) -> None:
        report, shard = self._report, self._task.shard
        for offset, data in scan(stream, self.fault):
            report.num_records += 1
            if data is None:
                continue
            try:
                if self._task.is_adopted:
                    self._add_adopted(offset, slim.read_record(data))
                else:
                    self._add(offset, _read_example(data))
            except ValueError as error:
                self.fault("example", offset, f"not an Example of a glyph: {error}")
        while stream.read(BLOCK_BYTES):  # also records that could not be parsed
            pass
        report.size_bytes, report.sha256 = stream.size_bytes, stream.sha256
        if report.size_bytes != shard.size_bytes:
            self._note("shard_size", None, f"expected {shard.size_bytes} bytes, found {report.size_bytes}")

    def _note(self, kind: str, offset: int | None, fact: str) -> None:
        self._report.findings.add(kind, self._task.file, fact, offset)

    def _add(self, offset: int, example: Example) -> None:
        label = example.label
        self._labels.append(label)
        if self._texts and self._texts.get(label) != example.text:
            self._note("class", offset, _class_fact(self._texts, example))
        num_pixels = example.height * example.width
        pixels = self._pixels(offset, example, num_pixels)
        if pixels is not None:
            self._add_pixels(offset, pixels, example.height, example.width)
        name = example.source_file
        if name is None:
            if self._task.sources is not None:
                self._note("source", offset, "it does not name the source file that it comes from")
            return
        self._origins.append(name)
        if self._task.sources is None:
            self._places.append((self._number_of(name), example.source_offset & 0xFFFFFFFFFFFFFFFF))
            self._place_offsets.append(offset)
            return
        known = self._sources.get(name)
        if known is None:
            self._note("source", offset, f"it comes from {_text(name)}, of which this shard holds no records")
            return
        number, size_bytes = known
        num_bytes = HEADER.size + (0 if pixels is None else num_pixels)
        if not 0 <= example.source_offset <= size_bytes - num_bytes:
            self._note("source", offset, f"byte {example.source_offset} of {_text(name)} begins no record of its size")
            return
        self._places.append((number, example.source_offset))
        self._place_offsets.append(offset)

    def _add_adopted(self, offset: int, record: SlimRecord) -> None:
        """Counts another program's record; of its picture training's own view is the right one."""
        self._labels.append(record.label)
        if self._texts and record.label not in self._texts:
            self._note("class", offset, f"class {record.label}, expected 0 to {len(self._texts) - 1}")
        try:
            picture = adopted_picture.prove(record.encoded, record.image_format)
        except ValueError as error:
            self._note("image", offset, str(error))
            return
        if picture.oddity:
            self._note("odd_picture", offset, picture.oddity)
        self._add_pixels(offset, picture.pixels, picture.height, picture.width)

    def _add_pixels(self, offset: int, pixels: bytes, height: int, width: int) -> None:
        self._digests.append(hashlib.sha256(pixels).digest()[:_DIGEST_BYTES])
        self._sides.append(height << 32 | width)
        self._digest_offsets.append(offset)

    def _number_of(self, name: bytes) -> int:
        """The number of a source without one in a manifest: a digest of both names, larger than all others."""
        number = self._numbers.get(name)
        if number is None:
            digest = hashlib.sha256(self._task.file.partition("/")[0].encode("utf-8") + b"/" + name).digest()
            number = self._numbers[name] = int.from_bytes(digest[:8], "little") | 1 << 63
        return number

    def _pixels(self, offset: int, example: Example, num_pixels: int) -> bytes | None:
        """The grey bytes, or the colours, row by row; None, and a finding, if their number is wrong."""
        height, width, encoded = example.height, example.width, example.encoded
        if example.image_format not in self._formats:
            expected = " or ".join(_text(name) for name in self._formats)
            fact = f"format {_text(example.image_format)}, expected {expected}"
        elif self._task.of_pictures:
            try:
                return _picture(encoded, _text(example.image_format), height, width)
            except ValueError as error:
                fact = str(error)
        elif not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            fact = f"{width} × {height} pixels, expected 1 to {MAX_SIDE} to a side"
        elif example.image_format == b"raw":
            if len(encoded) == num_pixels:
                return encoded
            fact = f"expected {num_pixels} bytes for {width} × {height} pixels, found {len(encoded)}"
        else:
            try:
                return png.decode(encoded, height, width)
            except ValueError as error:
                fact = str(error)
        self._note("image", offset, fact)
        return None

    def proof(self) -> ShardProof:
        report = self._report
        report.class_counts = dict(Counter(self._labels))
        report.source_counts = {_text(name): count for name, count in Counter(self._origins).items()}
        pixels = np.frombuffer(b"".join(self._digests), np.uint64).reshape(-1, 2).copy()
        pixels[:, 0] ^= np.array(self._sides, np.uint64)  # the same bytes in another shape are another picture
        places = np.array(self._places, np.uint64).reshape(-1, 2)
        return ShardProof(
            report,
            KeyTable.of_shard(report.number, pixels, self._digest_offsets),
            KeyTable.of_shard(report.number, places, self._place_offsets),
        )


def _picture(encoded: bytes, image_format: str, height: int, width: int) -> bytes:
    """The pixels of a stored picture. Raises ValueError if it is not one, or has another size."""
    image = image_files.decode(encoded, image_format)
    if image.size != (width, height):
        raise ValueError(f"expected {width} × {height} pixels, found {image.width} × {image.height}")
    return image.tobytes()


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _class_fact(texts: Mapping[int, bytes], example: Example) -> str:
    if example.label not in texts:
        return f"class {example.label}, expected 0 to {len(texts) - 1}"
    return f"class {example.label} is {_text(texts[example.label])}, its text says {_text(example.text)}"
