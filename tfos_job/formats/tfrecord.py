"""TFRecord files without TensorFlow: executors of the conversion have none.

A TFRecord is `length (uint64) · masked CRC-32C of length · data · masked CRC-32C of data`, all little-endian
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c

from tfos_job.errors import BadDataError
from tfos_job.storage import Readable, Writable

MAX_RECORD_BYTES = 1 << 30
_LENGTH = struct.Struct("<Q")
CRC = struct.Struct("<I")
FRAME_HEADER = struct.Struct("<QI")
FRAME_BYTES = FRAME_HEADER.size + CRC.size
"""The bytes of a record besides its data."""
_NEXT_STEP = "The file is damaged: convert the split again with --overwrite"


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted, since the CRC of bytes that hold their own CRC is a weak one."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame_header(num_bytes: int) -> bytes:
    """The bytes before `num_bytes` of data; their own masked CRC follows them."""
    length = _LENGTH.pack(num_bytes)
    return length + CRC.pack(masked_crc(length))


def write_record(stream: Writable, data: bytes) -> None:
    """Appends one record."""
    stream.write(b"".join((frame_header(len(data)), data, CRC.pack(masked_crc(data)))))


def read_records(stream: Readable, source: str) -> Iterator[tuple[int, bytes]]:
    """Reads a TFRecord file from its beginning, checking both checksums of each record.

    Yields:
      The byte offset of each record, and its data.

    Raises:
      BadDataError: a checksum does not fit, or the file ends within a record.
    """
    offset = 0
    while header := _read_exactly(stream, FRAME_HEADER.size):
        if len(header) < FRAME_HEADER.size:
            raise _bad(
                source, offset, f"truncated: expected a header of {FRAME_HEADER.size} bytes, found {len(header)}"
            )
        length, length_crc = FRAME_HEADER.unpack(header)
        _check_crc(source, offset, "length", header[: _LENGTH.size], length_crc)
        if length > MAX_RECORD_BYTES:
            raise _bad(source, offset, f"expected a record of at most {MAX_RECORD_BYTES} bytes, found {length}")
        body = _read_exactly(stream, length + CRC.size)
        if len(body) < length + CRC.size:
            raise _bad(source, offset, f"truncated: expected {length + CRC.size} bytes, found {len(body)}")
        data = body[:length]
        _check_crc(source, offset, "data", data, CRC.unpack_from(body, length)[0])
        yield offset, data
        offset += FRAME_HEADER.size + len(body)


def _read_exactly(stream: Readable, size: int) -> bytes:
    """`size` bytes, or what is left of the file."""
    data = stream.read(size)
    if len(data) == size or not data:
        return data
    parts = [data]
    missing = size - len(data)
    while missing and (data := stream.read(missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def _check_crc(source: str, offset: int, what: str, data: bytes, expected: int) -> None:
    found = masked_crc(data)
    if found != expected:
        raise _bad(source, offset, f"checksum of {what} does not fit: expected {expected:08x}, found {found:08x}")


def _bad(source: str, offset: int, fact: str) -> BadDataError:
    return BadDataError(fact, place=f"{source}, byte {offset}", next_step=_NEXT_STEP)
