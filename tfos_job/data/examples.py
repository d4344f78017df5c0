"""Glyphs out of `tf.train.Example`s, quickly: the way back of what conversion writes.

Conversion writes the keys in order and every number in its shortest form, so that what an Example is made of repeats.
Each part is taken apart once by `records.decode_example`, put together again to see that it is in that form, and looked
up from then on. An Example that is written another way is no worse: `records.decode_example` reads it as a whole.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from tfos_job.data import records

_MAX_CACHED = 1 << 16  # parts of one kind: hostile files hold more than are worth to remember
_GLYPH = {
    "image/class/label": int,
    "image/class/text": bytes,
    "image/encoded": bytes,
    "image/format": bytes,
    "image/height": int,
    "image/width": int,
}
_SOURCE = {"source/file": bytes, "source/offset": int}
_IMAGE_KEY = b"\n\rimage/encoded"
_MAX_DIGITS = 8  # bytes of a varint: numbers below 2⁵⁶
_OFFSET_HEADS = [b"", *(records.entry("source/offset", (1 << 7 * n) - 1)[:-n] for n in range(1, _MAX_DIGITS + 1))]
"""What precedes the varint of `source/offset`, by its number of bytes."""
_OFFSET_HEAD_BYTES = len(_OFFSET_HEADS[1])

Key = TypeVar("Key")
Value = TypeVar("Value")


class Glyph(NamedTuple):
    """An Example's features. `source_file` is None, and `source_offset` -1, where it does not name its source."""

    label: int
    text: bytes
    encoded: bytes
    image_format: bytes
    height: int
    width: int
    source_file: bytes | None
    source_offset: int


class ExampleReader:
    """Reads Examples. It remembers parts of those that it has read; one reader may serve many files."""

    def __init__(self) -> None:
        self._openings = _Openings()
        self._images = _ImageHeads()
        self._class = _Parts("image/class/label", "image/class/text")
        self._form = _Parts("image/format", "image/height", "image/width")
        self._source = _Parts("source/file")

    def read(self, data: bytes) -> Glyph:
        """The glyph of an Example.

        Raises:
          ValueError: not an Example, or not one of a glyph: a feature is missing, unknown or of another type.
        """
        try:
            return self._read_ours(data) or read_any(data)
        except IndexError:  # it ends too early to be one of ours
            return read_any(data)

    def _read_ours(self, data: bytes) -> Glyph | None:
        """The glyph, or None for an Example that is not, byte for byte, what conversion would have written.

        Raises:
          IndexError: perhaps, for an Example that is not.
        """
        opening = self._openings[len(data)]
        if opening is None or not data.startswith(opening):
            return None
        start = len(opening)
        end = start + data[start + 1] + 2  # an entry is a byte, its length in one byte, and so many bytes
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
        return Glyph(*of_class, data[start:stop], *form, *source, offset)  # type: ignore[arg-type, call-arg]


class _Parts(dict[bytes, "tuple[int | bytes, ...] | None"]):
    """The values of adjacent entries of these keys; None for bytes that are no such entries in their shortest form."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self._entries = [_Entries(key, (_GLYPH | _SOURCE)[key]) for key in keys]

    def __missing__(self, part: bytes) -> tuple[int | bytes, ...] | None:
        values: list[int | bytes] = []
        start = 0
        for entries in self._entries:
            end = start + part[start + 1] + 2
            value = entries[part[start:end]]
            if value is None:
                return _remember(self, part, None)
            values.append(value)
            start = end
        return _remember(self, part, tuple(values) if start == len(part) else None)


class _Entries(dict[bytes, "int | bytes | None"]):
    """The value of each entry of one key; None for bytes that are no such entry, or not in its shortest form."""

    def __init__(self, key: str, kind: type) -> None:
        super().__init__()
        self._key = key
        self._kind = kind
        self._head_bytes = len(records.entry(key, b"")) if kind is bytes else len(records.entry(key, 0)) - 1

    def __missing__(self, part: bytes) -> int | bytes | None:
        payload = part[self._head_bytes :]
        value = payload if self._kind is bytes else _value_of(payload)
        fits = value is not None and records.entry(self._key, value) == part
        return _remember(self, part, value if fits else None)


class _Openings(dict[int, "bytes | None"]):
    """What an Example of so many bytes begins with; there are sizes that none has in the shortest form."""

    def __missing__(self, size: int) -> bytes | None:
        heads = (b"\n" + records.varint(size - overhead) for overhead in range(2, 7) if size >= overhead)
        return _remember(self, size, next((head for head in heads if _read_length(head, 1) + len(head) == size), None))


class _ImageHeads(dict[int, "tuple[int, bytes] | None"]):
    """For the length of the entry `image/encoded`: the image's number of bytes, and what precedes them in the entry."""

    def __missing__(self, length: int) -> tuple[int, bytes] | None:
        least = length - len(_IMAGE_KEY) - 18  # three fields, each with a length of one to five bytes
        heads = ((size, _image_head(size)) for size in range(max(least, 0), max(least + 13, 0)))
        return _remember(self, length, next((found for found in heads if _read_length(found[1], 1) == length), None))


def _remember(cache: dict[Key, Value], key: Key, value: Value) -> Value:
    if len(cache) >= _MAX_CACHED:
        cache.clear()
    cache[key] = value
    return value


def read_any(data: bytes) -> Glyph:
    """The glyph of an Example, however it is written.

    Raises:
      ValueError: as `ExampleReader.read`.
    """
    features = records.decode_example(data)
    unknown = sorted(set(features) - set(_GLYPH) - set(_SOURCE))
    if unknown:
        raise ValueError(f"unknown feature {unknown[0]!r}")
    values = [_typed(features, key) for key in _GLYPH]
    if set(_SOURCE).isdisjoint(features):
        return Glyph(*values, None, -1)  # type: ignore[arg-type, call-arg]
    return Glyph(*values, *(_typed(features, key) for key in _SOURCE))  # type: ignore[arg-type]


def _typed(features: dict[str, bytes | int], key: str) -> bytes | int:
    kind = _GLYPH.get(key) or _SOURCE[key]
    if key not in features:
        raise ValueError(f"no feature {key!r}")
    if not isinstance(features[key], kind):
        raise ValueError(f"feature {key!r} is {type(features[key]).__name__}, expected {kind.__name__}")
    return features[key]


def _image_head(num_bytes: int) -> bytes:
    """What precedes the `num_bytes` of `image/encoded` in its entry: its length, the key, three more lengths."""
    value = b"\n" + records.varint(num_bytes)
    value_list = b"\n" + records.varint(len(value) + num_bytes) + value
    feature = b"\x12" + records.varint(len(value_list) + num_bytes) + value_list
    return b"\n" + records.varint(len(_IMAGE_KEY) + len(feature) + num_bytes) + _IMAGE_KEY + feature


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
    return value if 0 < shift <= 7 * _MAX_DIGITS else None


def _read_offset(data: bytes, at: int) -> int | None:
    """The value of `source/offset`, whose entry is the rest of the data; None where it is not in its shortest form."""
    num_digits = len(data) - at - _OFFSET_HEAD_BYTES
    if not 0 < num_digits <= _MAX_DIGITS or not data.startswith(_OFFSET_HEADS[num_digits], at):
        return None
    value = shift = 0
    for digit in data[-num_digits:-1]:
        if digit < 0x80:
            return None
        value |= (digit & 0x7F) << shift
        shift += 7
    digit = data[-1]
    return value | digit << shift if digit < 0x80 and (digit or not shift) else None
