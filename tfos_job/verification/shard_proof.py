"""The proof of a shard, and of the source files it was made from: the executors' side of `verify`.

Nothing is taken on trust: both checksums of each record, its Example, the image, the class and where it says that it
comes from. What is wrong is a finding, and the reading goes on. No TensorFlow, no pyspark.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tfos_job import storage
from tfos_job.conversion.gnt_shard import Failure, attempt
from tfos_job.errors import MissingInputError
from tfos_job.formats import image_files, png, tfrecord
from tfos_job.formats.archives import DamagedMemberError, Member, open_source
from tfos_job.formats.example_reader import ExampleReader, Glyph
from tfos_job.formats.gnt import HEADER, MAX_SIDE
from tfos_job.formats.manifest import Shard, SourceRange
from tfos_job.storage import Readable
from tfos_job.verification.duplicates import Repeats, Table, check_repeats
from tfos_job.verification.findings import Findings

BLOCK_BYTES = 4 << 20
_DIGEST_BYTES = 16  # of a SHA-256: two of 2³² records share one by chance once in 2⁶⁵ datasets
_read_example = ExampleReader().read  # one for the process: what it remembers holds for all shards


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to be proved.

    Attributes:
      number: of the shard among all that are proved.
      path: where it is.
      file: its path below the dataset's folder, for findings.
      shard: what the manifest says of it.
      image_format: of all its records, or `keep` for any of `image_files.STORED_FORMATS`.
      of_pictures: whether it was made from image files, grey or coloured; else of grey glyphs.
      characters: the charset, by class id; empty where it is not known.
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


@dataclass(kw_only=True)
class ShardReport:
    """What was found in a shard.

    Attributes:
      num_records: with or without a fault.
      whole: whether each record could be counted; where not, counts are lower bounds.
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
    pixels: Table
    places: Table


def verify_shard(task: ShardTask) -> ShardProof:
    """Reads a shard to its end.

    Raises:
      JobError: it cannot be read for another reason than that it is not there.
    """
    prover = _Prover(task)
    try:
        with storage.open_read(task.path) as stream:
            prover.read(_Hashing(stream))
    except MissingInputError:
        prover.fault("missing_shard", None, f"expected {task.shard.size_bytes} bytes, found no file")
    return prover.proof()


class _Prover:
    """Keeps the accounts of one shard."""

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
        """Something because of which a record, or all that follow, cannot be counted."""
        self._report.whole = False
        self._report.findings.add(kind, self._task.file, fact, offset)

    def read(self, stream: _Hashing) -> None:
        report, shard = self._report, self._task.shard
        for offset, data in scan(stream, self.fault):
            report.num_records += 1
            if data is None:
                continue
            try:
                glyph = _read_example(data)
            except ValueError as error:
                self.fault("example", offset, f"not an Example of a glyph: {error}")
                continue
            self._add(offset, glyph)
        while stream.read(BLOCK_BYTES):  # what could not be understood is hashed all the same
            pass
        report.size_bytes, report.sha256 = stream.size_bytes, stream.sha256
        if report.size_bytes != shard.size_bytes:
            self._note("shard_size", None, f"expected {shard.size_bytes} bytes, found {report.size_bytes}")

    def _note(self, kind: str, offset: int | None, fact: str) -> None:
        self._report.findings.add(kind, self._task.file, fact, offset)

    def _add(self, offset: int, glyph: Glyph) -> None:
        label = glyph.label
        self._labels.append(label)
        if self._texts and self._texts.get(label) != glyph.text:
            self._note("class", offset, _class_fact(self._texts, glyph))
        num_pixels = glyph.height * glyph.width
        pixels = self._pixels(offset, glyph, num_pixels)
        if pixels is not None:
            self._digests.append(hashlib.sha256(pixels).digest()[:_DIGEST_BYTES])
            self._sides.append(glyph.height << 32 | glyph.width)
            self._digest_offsets.append(offset)
        name = glyph.source_file
        if name is None:
            if self._task.sources is not None:
                self._note("source", offset, "it does not name the source file that it comes from")
            return
        self._origins.append(name)
        if self._task.sources is None:
            self._places.append((self._number_of(name), glyph.source_offset & 0xFFFFFFFFFFFFFFFF))
            self._place_offsets.append(offset)
            return
        known = self._sources.get(name)
        if known is None:
            self._note("source", offset, f"it comes from {_text(name)}, of which this shard holds no records")
            return
        number, size_bytes = known
        num_bytes = HEADER.size + (0 if pixels is None else num_pixels)
        if not 0 <= glyph.source_offset <= size_bytes - num_bytes:
            self._note("source", offset, f"byte {glyph.source_offset} of {_text(name)} begins no record of its size")
            return
        self._places.append((number, glyph.source_offset))
        self._place_offsets.append(offset)

    def _number_of(self, name: bytes) -> int:
        """Of a source that no manifest numbers: by its name and its split's, and larger than any of the others."""
        number = self._numbers.get(name)
        if number is None:
            digest = hashlib.sha256(self._task.file.partition("/")[0].encode("utf-8") + b"/" + name).digest()
            number = self._numbers[name] = int.from_bytes(digest[:8], "little") | 1 << 63
        return number

    def _pixels(self, offset: int, glyph: Glyph, num_pixels: int) -> bytes | None:
        """The grey bytes, or the colours, row by row; None, and a finding, where there are not as many as should be."""
        height, width, encoded = glyph.height, glyph.width, glyph.encoded
        if glyph.image_format not in self._formats:
            expected = " or ".join(_text(name) for name in self._formats)
            fact = f"format {_text(glyph.image_format)}, expected {expected}"
        elif self._task.of_pictures:
            try:
                return _picture(encoded, _text(glyph.image_format), height, width)
            except ValueError as error:
                fact = str(error)
        elif not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            fact = f"{width} × {height} pixels, expected 1 to {MAX_SIDE} to a side"
        elif glyph.image_format == b"raw":
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
            Table.of_shard(report.number, pixels, self._digest_offsets),
            Table.of_shard(report.number, places, self._place_offsets),
        )


def _picture(encoded: bytes, image_format: str, height: int, width: int) -> bytes:
    """The pixels of a stored picture. Raises ValueError where it is not one, or of another size."""
    image = image_files.decode(encoded, image_format)
    if image.size != (width, height):
        raise ValueError(f"expected {width} × {height} pixels, found {image.width} × {image.height}")
    return image.tobytes()


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _class_fact(texts: Mapping[int, bytes], glyph: Glyph) -> str:
    if glyph.label not in texts:
        return f"class {glyph.label}, expected 0 to {len(texts) - 1}"
    return f"class {glyph.label} is {_text(texts[glyph.label])}, its text says {_text(glyph.text)}"


# --- TFRecord --------------------------------------------------------------------------------------------------------


class _Hashing:
    """A stream that hashes and counts what passes through it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self.size_bytes += len(data)
        return data


def scan(stream: Readable, fault: Callable[[str, int, str], None]) -> Iterator[tuple[int, bytes | None]]:
    """Reads a TFRecord file in large blocks, and goes on where `tfrecord.read_records` would stop.

    Args:
      stream: from its beginning; short reads are fine.
      fault: takes the kind, the byte and the fact of each fault.

    Yields:
      The byte offset of each record, and its data; None where the data's checksum does not fit.
    """
    unpack, unpack_crc = tfrecord.FRAME_HEADER.unpack_from, tfrecord.CRC.unpack_from
    header_bytes, frame_bytes = tfrecord.FRAME_HEADER.size, tfrecord.FRAME_BYTES
    good_headers: set[bytes] = set()  # glyphs of one size have the same
    block, at, offset = b"", 0, 0
    while True:
        if len(block) - at < header_bytes:
            block, at = _more(stream, block[at:], header_bytes), 0
            if len(block) < header_bytes:
                break
        length, length_crc = unpack(block, at)
        header = block[at : at + header_bytes]
        if header not in good_headers:
            if tfrecord.masked_crc(header[:8]) != length_crc:
                fault("checksum", offset, "of the record's length: what follows in the file cannot be read")
                return
            if length > tfrecord.MAX_RECORD_BYTES:
                fault("record_size", offset, f"expected at most {tfrecord.MAX_RECORD_BYTES} bytes, found {length}")
                return
            good_headers.add(header)
        size = length + frame_bytes
        if len(block) - at < size:
            block, at = _more(stream, block[at:], size), 0
            if len(block) < size:
                break
        start = at + header_bytes
        end = start + length
        data = block[start:end]
        if tfrecord.masked_crc(data) == unpack_crc(block, end)[0]:
            yield offset, data
        else:
            fault("checksum", offset, f"of the record's {length} bytes of data")
            yield offset, None
        at += size
        offset += size
    if block:
        fault("truncated", offset, f"the file ends {len(block)} bytes after the record's beginning")


def _more(stream: Readable, rest: bytes, size: int) -> bytes:
    """`rest` and what follows, at least `size` bytes of it unless the file ends; never more than a block too much."""
    parts, have = [rest], len(rest)
    while have < size and (data := stream.read(BLOCK_BYTES)):
        parts.append(data)
        have += len(data)
    return b"".join(parts)


# --- source files ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RangeTask:
    """A part of a source file that was read in one go. `size_bytes` is the whole file's.

    `path` is that of its archive, where it is a `member` of one.
    """

    path: str
    name: str
    size_bytes: int
    range: SourceRange
    member: Member | None = None


def verify_ranges(tasks: tuple[RangeTask, ...]) -> Findings:
    """Whether source files still hold the bytes that they were converted from.

    Raises:
      JobError: one cannot be read for another reason than that it is not there.
    """
    findings = Findings()
    for task in tasks:
        try:
            fact = _range_fault(task)
        except MissingInputError:
            findings.add("missing_source", task.name, f"not at {task.path}")
            continue
        except DamagedMemberError as error:
            fact = error.fact if task.range.sha256 else ""  # as when it was converted
        if fact:
            findings.add("changed_source", task.name, fact, task.range.start)
    return findings


def _range_fault(task: RangeTask) -> str:
    """In what the range is not what was converted; empty where it is."""
    start, end, sha256 = task.range.start, task.range.end, task.range.sha256
    if special := storage.stat(task.path).special:
        return f"expected a file, found {special}"
    with open_source(task.path, task.member) as stream:
        if task.member is None:  # a member is one range
            stream.seek(start)
        reader = _Hashing(stream)
        while missing := end - start - reader.size_bytes:
            if not reader.read(min(missing, BLOCK_BYTES)):
                break
        longer = end == task.size_bytes and bool(stream.read(1))
    if missing or longer:
        return f"expected {task.size_bytes} bytes, found {f'fewer than {end}' if missing else 'more'}"
    if not sha256:
        return "expected a damaged member of an archive, as when it was converted, found a sound one"
    if reader.sha256 != sha256:
        return f"bytes {start} to {end}: expected SHA-256 {sha256[:12]}, found {reader.sha256[:12]}"
    return ""


# --- on an executor --------------------------------------------------------------------------------------------------

Task = ShardTask | tuple[RangeTask, ...]
Outcome = ShardReport | Findings | Failure
Part = tuple[str, Table] | Outcome  # a table with its kind, `pixels` or `places`


def prove(num_buckets: int, task: Task) -> Iterator[tuple[int, Part]]:
    """Carries out a task. Rows of its tables have their bucket's number, what it came to `num_buckets`."""
    if isinstance(task, ShardTask):
        found = attempt(verify_shard, task)
        if isinstance(found, Failure):
            yield num_buckets, found
            return
        for kind, table in (("pixels", found.pixels), ("places", found.places)):
            for bucket, rows in table.deal(num_buckets):
                yield bucket, (kind, rows)
        yield num_buckets, found.report
    else:
        yield num_buckets, attempt(verify_ranges, task)


def compare(
    files: Sequence[str], splits: Sequence[str], parts: Iterable[tuple[int, Part]]
) -> Iterator[Outcome | Repeats]:
    """What lies in one bucket, of all tasks: outcomes as they are, and tables looked through for repeats."""
    tables: dict[str, list[Table]] = {"pixels": [], "places": []}
    for _, part in parts:
        if isinstance(part, tuple):
            tables[part[0]].append(part[1])
        else:
            yield part
    if any(tables.values()):
        yield check_repeats(tables["pixels"], tables["places"], files, splits)
