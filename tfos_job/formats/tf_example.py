"""`tf.train.Example` without TensorFlow: executors of the conversion have none.

Of protocol buffers, `Example` needs varints and nested byte strings
(https://protobuf.dev/programming-guides/encoding/). Keys are written in sorted order, so that the same glyph always has
the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

_VARINT, _BYTES = 0, 2  # wire types
Key = TypeVar("Key")
Value = TypeVar("Value")
_MAX_CACHED = 1 << 16  # most parts of one kind that are cached


def encode_example(features: Mapping[str, bytes | int]) -> bytes:
    """A serialized `tf.train.Example` with one value a feature: bytes or int64."""
    return field(1, b"".join(entry(key, features[key]) for key in sorted(features)))


def entry(key: str, value: bytes | int) -> bytes:
    """One entry of the map `Features.feature`: key 1, value 2, which is a list of bytes (1) or of packed int64 (3)."""
    list_number, payload = (3, varint(value)) if isinstance(value, int) else (1, value)
    return field(1, field(1, key.encode("utf-8")) + field(2, field(list_number, field(1, payload))))


def field(number: int, payload: bytes) -> bytes:
    """A field of a message that is bytes, text or a message itself."""
    return b"".join((varint(number << 3 | _BYTES), varint(len(payload)), payload))


def varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF  # int64 in two's complement
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


IMAGE_KEY = b"\n\rimage/encoded"
"""The key as it is in its entry."""
MAX_OFFSET_BYTES = 8
"""Of the varint of `source/offset`, seven bits each: files of 2⁵⁶ bytes."""
OFFSET_HEADS = [b"", *(entry("source/offset", (1 << 7 * size) - 1)[:-size] for size in range(1, MAX_OFFSET_BYTES + 1))]
"""The bytes before the varint of `source/offset` in its entry, by the varint's number of bytes."""


def image_head(num_bytes: int) -> bytes:
    """The bytes before the `num_bytes` of `image/encoded` in its entry: its length, the key, three more lengths.

    Not by `entry`: a hostile file may ask for any number of bytes.
    """
    value = b"\n" + varint(num_bytes)
    value_list = b"\n" + varint(len(value) + num_bytes) + value
    feature = b"\x12" + varint(len(value_list) + num_bytes) + value_list
    return b"\n" + varint(len(IMAGE_KEY) + len(feature) + num_bytes) + IMAGE_KEY + feature


class Cache(dict[Key, Value]):
    """The values of `make`, each made once; cleared when hostile files have made it large."""

    def __init__(self, make: Callable[[Key], Value]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> Value:
        if len(self) >= _MAX_CACHED:
            self.clear()
        value = self[key] = self._make(key)
        return value


def decode_example(data: bytes) -> dict[str, bytes | int]:
    """The inverse of `encode_example`.

    Raises:
      ValueError: not an Example, or one with another number of values a feature than one, or with floats.
    """
    features: dict[str, bytes | int] = {}
    for _, message in _fields(data, {1}):
        for _, entry in _fields(message, {1}):
            parts = dict(_fields(entry, {1, 2}))
            if set(parts) != {1, 2}:
                raise ValueError("a feature has no name or no value")
            features[parts[1].decode("utf-8")] = _decode_feature(parts[2])
    return features


def decode_features(data: bytes, keys: Collection[str]) -> dict[str, list[bytes] | list[int] | None]:
    """The values of those of the keys that an Example has; any number of them, and None for a list of floats.

    What other programs write has other features beside ours, some with many values.

    Raises:
      ValueError: not an Example.
    """
    wanted = {key.encode("utf-8"): key for key in keys}
    found: dict[str, list[bytes] | list[int] | None] = {}
    for _, message in _fields(data, {1}):
        for _, entry in _fields(message, {1}):
            parts = dict(_fields(entry, {1, 2}))
            key = wanted.get(parts.get(1, b""))
            lists = _fields(parts.get(2, b""), {1, 2, 3}) if key is not None else []
            if key is not None and lists:  # a feature without a list is one that is not there
                found[key] = _values(*lists[-1])
    return found


def _values(kind: int, value_list: bytes) -> list[bytes] | list[int] | None:
    """The values of a list of bytes (1), floats (2) or int64 (3)."""
    if kind == 2:
        return None
    parts = [value for _, value in _fields(value_list, {1})]
    if kind == 1:
        return parts
    packed, numbers, at = b"".join(parts), [], 0
    while at < len(packed):
        value, at = _read_varint(packed, at)
        numbers.append(value - (1 << 64) if value >> 63 else value)
    return numbers


def _decode_feature(feature: bytes) -> bytes | int:
    (number, value_list), *more = _fields(feature, {1, 3}) or [(0, b"")]
    if number == 1 and not more:
        values = [value for _, value in _fields(value_list, {1})]
        if len(values) == 1:
            return values[0]
    elif number == 3 and not more:
        packed = b"".join(value for _, value in _fields(value_list, {1}))
        value, end = _read_varint(packed, 0)
        if end == len(packed):
            return value - (1 << 64) if value >> 63 else value
    raise ValueError("a feature has not exactly one value")


def _fields(message: bytes, known: set[int]) -> list[tuple[int, bytes]]:
    """The numbers and payloads of a message's fields. A bare varint comes back as its bytes, like a packed one."""
    found = []
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, wire_type = key >> 3, key & 7
        if number not in known or wire_type not in (_VARINT, _BYTES):
            raise ValueError(f"unexpected field {number} of wire type {wire_type}")
        if wire_type == _VARINT:
            start = at
            _, at = _read_varint(message, at)
        else:
            size, start = _read_varint(message, at)
            at = start + size
        if at > len(message):
            raise ValueError("a field is longer than its message")
        found.append((number, message[start:at]))
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and the position behind it."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise ValueError("a number does not end")
