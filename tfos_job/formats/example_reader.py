"""A fast reader of the `tf.train.Example`s that conversion writes.

Conversion writes the keys in order and every number in its shortest form, so the parts of Examples repeat. Each part is
decoded once by `tf_example.decode_example`, encoded again to prove that it has that form, and looked up from then on.
An Example of another form is valid, too: `tf_example.decode_example` reads it as a whole.
"""

from __future__ import annotations

from typing import NamedTuple

from tfos_job.formats import tf_example
from tfos_job.formats.tf_example import Cache

_GLYPH = {
    "image/class/label": int,
    "image/class/text": bytes,
    "image/encoded": bytes,
    "image/format": bytes,
    "image/height": int,
    "image/width": int,
}
_SOURCE = {"source/file": bytes, "source/offset": int}
_OFFSET_HEAD_BYTES = len(tf_example.OFFSET_HEADS[1])


class Example(NamedTuple):
    """The features of an Example. `source_file` is None, and `source_offset` -1, if it does not name its source."""

    label: int
    text: bytes
    encoded: bytes
    image_format: bytes
    height: int
    width: int
    source_file: bytes | None
    source_offset: int


class ExampleReader:
    """Reads Examples. It caches parts of those that it has read; one reader may serve many files."""

    def __init__(self) -> None:
        self._openings = Cache(_opening)
        self._images = Cache(_image_of)
        self._class = _PartCache("image/class/label", "image/class/text")
        self._form = _PartCache("image/format", "image/height", "image/width")
        self._source = _PartCache("source/file")

    def read(self, data: bytes) -> Example:
        """The features of an Example of a glyph or picture.

        Raises:
          ValueError: not an Example, or not one of a glyph: a feature is missing, unknown or of another type.
        """
        try:
            return self._read_ours(data) or read_any(data)
        except IndexError:  # too short for an Example of ours
            return read_any(data)

    def _read_ours(self, data: bytes) -> Example | None:
        """The features, or None for an Example that is not, byte for byte, what conversion would have written.

        Raises:
          IndexError: perhaps, for an Example that is not.
        """
        opening = self._openings[len(data)]
        if opening is None or not data.startswith(opening):
            return None
        start = len(opening)
        end = start + data[start + 1] + 2  # an entry is a byte, its length in one byte, and its bytes
        end += data[end + 1] + 2
        of_class = self._class[data[start:end]]
        image = self._images[_read_length(data, end + 1)]
        if image is None or not data.startswith(image[1], end):
            return None
        start = end + len(image[1])
        stop = start + image[0]
        end = stop + data[stop + 1] + 2
        end += data[end + 1] + 2
        end += data[end + 1] + 2
        form = self._form[data[stop:end]]
        last = end + data[end + 1] + 2
        source = self._source[data[end:last]]
        offset = _read_offset(data, last)
        if of_class is None or form is None or source is None or offset is None:
            return None
        return Example(*of_class, data[start:stop], *form, *source, offset)  # type: ignore[arg-type, call-arg]


class _PartCache(Cache[bytes, "tuple[int | bytes, ...] | None"]):
    """The values of adjacent entries of these keys; None for bytes that are no such entries in their shortest form."""

    def __init__(self, *keys: str) -> None:
        super().__init__(self._value_of)
        self._entries = [_Entries(key, (_GLYPH | _SOURCE)[key]) for key in keys]

    def _value_of(self, part: bytes) -> tuple[int | bytes, ...] | None:
        values: list[int | bytes] = []
        start = 0
        for entries in self._entries:
            end = start + part[start + 1] + 2
            value = entries[part[start:end]]
            if value is None:
                return None
            values.append(value)
            start = end
        return tuple(values) if start == len(part) else None


class _Entries(Cache[bytes, "int | bytes | None"]):
    """The value of each entry of one key; None for bytes that are no such entry, or not in its shortest form."""

    def __init__(self, key: str, kind: type) -> None:
        super().__init__(self._value_of)
        self._key = key
        self._kind = kind
        self._head_bytes = len(tf_example.entry(key, b"")) if kind is bytes else len(tf_example.entry(key, 0)) - 1

    def _value_of(self, part: bytes) -> int | bytes | None:
        payload = part[self._head_bytes :]
        value = payload if self._kind is bytes else _value_of(payload)
        fits = value is not None and tf_example.entry(self._key, value) == part
        return value if fits else None


def _opening(size: int) -> bytes | None:
    """The first bytes of an Example of this size; None for a size that none has in the shortest form."""
    heads = (b"\n" + tf_example.varint(size - overhead) for overhead in range(2, 7) if size >= overhead)
    return next((head for head in heads if _read_length(head, 1) + len(head) == size), None)


def _image_of(length: int) -> tuple[int, bytes] | None:
    """For the length of the entry `image/encoded`: the image's number of bytes, and what precedes them in the entry."""
    least = length - len(tf_example.IMAGE_KEY) - 18  # three fields, each with a length of one to five bytes
    heads = ((size, tf_example.image_head(size)) for size in range(max(least, 0), max(least + 13, 0)))
    return next((found for found in heads if _read_length(found[1], 1) == length), None)


def read_any(data: bytes) -> Example:
    """The features of an Example, however it is written.

    Raises:
      ValueError: as `ExampleReader.read`.
    """
    features = tf_example.decode_example(data)
    unknown = sorted(set(features) - set(_GLYPH) - set(_SOURCE))
    if unknown:
        raise ValueError(f"unknown feature {unknown[0]!r}")
    values = [_typed(features, key) for key in _GLYPH]
    if set(_SOURCE).isdisjoint(features):
        return Example(*values, None, -1)  # type: ignore[arg-type, call-arg]
    return Example(*values, *(_typed(features, key) for key in _SOURCE))  # type: ignore[arg-type]


def _typed(features: dict[str, bytes | int], key: str) -> bytes | int:
    kind = _GLYPH.get(key) or _SOURCE[key]
    if key not in features:
        raise ValueError(f"no feature {key!r}")
    if not isinstance(features[key], kind):
        raise ValueError(f"feature {key!r} is {type(features[key]).__name__}, expected {kind.__name__}")
    return features[key]


def _read_length(data: bytes, at: int) -> int:
    """A varint of at most four bytes; -1 for what is longer, which is no length of ours."""
    value = shift = 0
    for index in range(at, at + 4):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
    return -1


def _value_of(digits: bytes) -> int | None:
    """The number that all the bytes are a varint of; None for a negative one, and for none."""
    value = shift = 0
    for digit in digits:
        value |= (digit & 0x7F) << shift
        shift += 7
    return value if 0 < shift <= 7 * tf_example.MAX_OFFSET_BYTES else None


def _read_offset(data: bytes, at: int) -> int | None:
    """The value of `source/offset`, whose entry is the rest of the data; None if it is not in its shortest form."""
    num_digits = len(data) - at - _OFFSET_HEAD_BYTES
    if not 0 < num_digits <= tf_example.MAX_OFFSET_BYTES or not data.startswith(
        tf_example.OFFSET_HEADS[num_digits], at
    ):
        return None
    value = shift = 0
    for digit in data[-num_digits:-1]:
        if digit < 0x80:
            return None
        value |= (digit & 0x7F) << shift
        shift += 7
    digit = data[-1]
    return value | digit << shift if digit < 0x80 and (digit or not shift) else None
