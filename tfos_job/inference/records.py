"""Files of inputs as images for a network: records of shards and of GNT files, and pictures.

What cannot be read is an error in its place, and the reading goes on behind it. Records are seen as training sees them:
their ink has been cropped by whoever made them. Pictures are seen as `predict` sees them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from tfos_job import storage
from tfos_job.errors import AccessError, BadDataError, MissingInputError
from tfos_job.formats import gnt, gnt_reader
from tfos_job.formats.archives import open_source
from tfos_job.formats.charset import Charset, class_name
from tfos_job.formats.form import GROUP_SIZE
from tfos_job.formats.gnt_reader import RecordBlock
from tfos_job.formats.hashing import HashingReader
from tfos_job.formats.quarantine import BadRange
from tfos_job.inference.answer import NoAnswer
from tfos_job.inference.pictures import Request
from tfos_job.inference.predictor import Predictor, Seen
from tfos_job.input.damage import first_line
from tfos_job.input.decoding import decode, decode_images
from tfos_job.scoring import inputs
from tfos_job.scoring.inputs import InputFile
from tfos_job.verification import record_scan

_UNREADABLE = (AccessError, BadDataError, MissingInputError)
Item = TypeVar("Item")


class Sight(NamedTuple):
    """An input for the network, or why it cannot see it.

    Attributes:
      image: uint8 [h, w, C], as of `Predictor.see`; None if there is none to look at.
      source, offset, label, doubtful, error: as in `scoring.rows.Row`.
    """

    source: str
    offset: int | None = None
    image: np.ndarray | None = None
    label: str | None = None
    doubtful: str = ""
    error: str = ""


class RecordReader:
    """Reads files of inputs for one network."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        form = predictor.form

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def decoded(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return decode(serialized, form, GROUP_SIZE)

        sizes = tf.TensorSpec([None], tf.int64)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string), sizes, sizes])
        def glyphs(pixels: tf.Tensor, heights: tf.Tensor, widths: tf.Tensor) -> tf.Tensor:
            return decode_images(pixels, tf.fill(tf.shape(pixels), "raw"), heights, widths, form, GROUP_SIZE)

        self._decoded, self._glyphs = decoded, glyphs

    def read(self, files: Iterable[InputFile]) -> Iterator[Sight]:
        """All inputs of files, in order.

        Raises:
          StorageError: a file system has failed.
        """
        kinds: Mapping[str, Callable[[InputFile], Iterator[Sight]]] = {
            inputs.SHARD: self._of_shard,
            inputs.GNT: self._of_gnt,
            inputs.PICTURE: self._of_picture,
        }
        for file in files:
            if file.fault:
                yield Sight(file.name, error=file.fault)
                continue
            try:
                inputs.require_unchanged(file)
                yield from kinds[file.kind](file)
            except _UNREADABLE as error:
                yield Sight(file.name, error=inputs.in_words(error))

    # --- shards ------------------------------------------------------------------------------------------------------

    def _of_shard(self, file: InputFile) -> Iterator[Sight]:
        names = _class_names(file.charset)
        faults: dict[int, str] = {}
        num_found = num_faults = 0

        def fault(kind: str, offset: int, fact: str) -> None:
            nonlocal num_faults
            num_faults += 1
            faults[offset] = f"{kind}: {fact}"

        with storage.open_read(file.path) as stream:
            hashed = HashingReader(stream)
            for group in _batched(record_scan.scan(hashed, fault), GROUP_SIZE):
                num_found += len(group)
                readable = iter(self._decode_examples([data for _, data in group if data is not None], names))
                for offset, data in group:
                    sight = Sight("", error=faults.pop(offset)) if data is None else next(readable)
                    yield sight._replace(source=file.name, offset=offset)
        missing = file.num_records - num_found
        for offset, fact in faults.items():  # behind which nothing can be read
            yield Sight(file.name, offset, error=f"{fact}; {missing} of {file.num_records} records are lost")
        if missing and not faults:
            yield Sight(file.name, error=f"holds {num_found} records, its manifest says {file.num_records}")
        elif not num_faults and hashed.sha256 != file.version:  # whole, but another one
            error = inputs.changed("its SHA-256 is not its manifest's", file)
            yield Sight(file.name, error=inputs.in_words(error))

    def _decode_examples(self, group: Sequence[bytes], names: Sequence[str]) -> list[Sight]:
        """Records of a shard, without their places."""
        if not group:
            return []
        try:
            images, labels = (tensor.numpy() for tensor in self._decoded(tf.constant(group)))
        except tf.errors.OpError as error:
            if len(group) == 1:
                return [Sight("", error=f"the record cannot be decoded: {first_line(error)}")]
            return [sight for data in group for sight in self._decode_examples([data], names)]
        return [
            Sight("", image=image, label=names[label] if 0 <= label < len(names) else None)
            for image, label in zip(images, labels.tolist(), strict=True)
        ]

    # --- GNT files ---------------------------------------------------------------------------------------------------

    def _of_gnt(self, file: InputFile) -> Iterator[Sight]:
        bad: list[BadRange] = []
        with _whole(file) as stream:
            for block in gnt_reader.RangeReader(stream, file.name, bad.append):
                yield from _bad_sights(file.name, bad)
                yield from self._of_block(file.name, block)
        yield from _bad_sights(file.name, bad)

    def _of_block(self, name: str, block: RecordBlock) -> Iterator[Sight]:
        for group in _batched(block, GROUP_SIZE):
            images = self._glyphs(
                tf.constant([record.pixels for record in group]),
                tf.constant([record.height for record in group], tf.int64),
                tf.constant([record.width for record in group], tf.int64),
            )
            for record, image in zip(group, images.numpy(), strict=True):
                yield Sight(name, record.offset, image, label=gnt.decode_tag(record.tag))

    # --- pictures ----------------------------------------------------------------------------------------------------

    def _of_picture(self, file: InputFile) -> Iterator[Sight]:
        seen = self._predictor.see(Request(file.path, file.path))
        if isinstance(seen, NoAnswer):
            yield Sight(file.path, error=inputs.in_words(seen.error))
            return
        folder = class_name(file.path.rpartition("/")[0].rpartition("/")[2])
        label = folder if folder in self._names else None
        answer, image = (seen.answer, seen.pixels) if isinstance(seen, Seen) else (seen, None)
        # Who reads the classes alone must not take a guess for an answer.
        yield Sight(file.path, None, None if answer.doubtful else image, label, doubtful=answer.doubtful)

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._predictor.classes)


@functools.lru_cache(maxsize=4)
def _class_names(charset: str) -> tuple[str, ...]:
    """The names of the classes of a dataset: its records have ids."""
    try:
        return Charset.from_json(storage.read_json(charset), place=charset).characters
    except ValueError as error:
        raise BadDataError(f"not JSON: {error}", place=charset) from error


@contextlib.contextmanager
def _whole(file: InputFile) -> Iterator[storage.Readable]:
    """A GNT file; a member of an archive only after all of it has been read and proved: its CRC is at its end."""
    member = inputs.member_of(file)
    if member is not None:
        with open_source(file.path, member) as stream:
            while stream.read(storage.BUFFER_BYTES):
                pass
    with open_source(file.path, member) as stream:
        yield stream


def _bad_sights(name: str, bad: list[BadRange]) -> Iterator[Sight]:
    for one in bad:
        yield Sight(name, one.start, error=f"{one.reason} ({one.end - one.start} bytes cannot be read)")
    bad.clear()


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    coming = iter(items)
    while batch := list(itertools.islice(coming, size)):
        yield batch


def ahead(items: Iterator[Item], num_items: int) -> Iterator[Item]:
    """The same items, made on a thread of its own, up to `num_items` before they are asked for.

    Raises what making them raises.
    """
    made: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(num_items)
    stopped = threading.Event()

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                made.put((item, None))
                if stopped.is_set():
                    return
        except BaseException as caught:  # noqa: BLE001 - raised where the items are asked for
            error = caught
        made.put((None, error))

    threading.Thread(target=make, name="ahead", daemon=True).start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        with contextlib.suppress(queue.Empty):  # a thread that waits for room
            made.get_nowait()
