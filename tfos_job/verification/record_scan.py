"""The records of a TFRecord file that may be damaged: each fault is reported, and the reading goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tfos_job.formats import tfrecord
from tfos_job.storage import Readable

BLOCK_BYTES = 4 << 20


def scan(stream: Readable, fault: Callable[[str, int, str], None]) -> Iterator[tuple[int, bytes | None]]:
    """Reads a TFRecord file in large blocks, and goes on where `tfrecord.read_records` would stop.

    Args:
      stream: from its beginning; short reads are fine.
      fault: takes the kind, the byte and the fact of each fault.

    Yields:
      The byte offset of each record, and its data; None if the data's checksum does not fit.
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
