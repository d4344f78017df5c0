"""Images as `tf.train.Example`s; glyphs in TFRecord frames, a block of records at a time: the conversion's inner loop.

What an Example is made of repeats: the label's part for each class, the head of the pixels for each number of bytes,
the rest for each size of glyph. Each is built once (by `tf_example.py`) and looked up from then on; a record costs a
few dictionary lookups, a checksum and a copy of its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfos_job.formats import png
from tfos_job.formats.gnt import HEADER
from tfos_job.formats.gnt_reader import RecordBlock
from tfos_job.formats.image_files import StoredPicture
from tfos_job.formats.tf_example import MAX_OFFSET_BYTES, OFFSET_HEADS, Cache, encode_example, entry, field, image_head
from tfos_job.formats.tfrecord import CRC, frame_header, masked_crc


class GlyphEncoder:
    """Glyphs as the bytes of a shard.

    Args:
      characters: the character of each class id.
      image_format: `raw` (height × width grey bytes) or `png`.
    """

    def __init__(self, characters: Sequence[str], image_format: str) -> None:
        self._characters = characters
        self._encode_image = png.encode if image_format == "png" else _raw
        format_part = entry("image/format", image_format.encode("ascii"))
        self._class_part = Cache(self._make_class_part)
        self._image_head = Cache(image_head)
        self._size_part: Cache[int, bytes] = Cache(
            lambda sides: format_part + entry("image/height", sides >> 16) + entry("image/width", sides & 0xFFFF)
        )
        # Two heads in one: of the frame, and of the field of the Example that all entries are in.
        self._frame_head = Cache(_frame_head)

    def _make_class_part(self, class_id: int) -> bytes:
        text = self._characters[class_id].encode("utf-8")
        return entry("image/class/label", class_id) + entry("image/class/text", text)

    def encode(self, block: RecordBlock, class_ids: Sequence[int | None], source: str) -> bytes:
        """TFRecords of those records of a block that have a class id; None leaves one out.

        Args:
          block: of the file `source`.
          class_ids: one for each of the block's records.
          source: the file's name.
        """
        data, source_part, frame = block.data, entry("source/file", source.encode("utf-8")), self._frame
        parts: list[bytes] = []
        add = parts.extend
        for start, width, height, class_id, offset_entry in zip(
            block.starts, block.widths, block.heights, class_ids, _offset_entries(block), strict=True
        ):
            if class_id is not None:
                begin = start + HEADER.size
                pixels = data[begin : begin + width * height]
                add(frame(class_id, pixels, width, height, source_part, offset_entry))
        return b"".join(parts)

    def encode_one(self, class_id: int, pixels: bytes, width: int, height: int, source: str, offset: int) -> bytes:
        """The TFRecord of one glyph, of grey `pixels` row by row."""
        source_part = entry("source/file", source.encode("utf-8"))
        return b"".join(self._frame(class_id, pixels, width, height, source_part, entry("source/offset", offset)))

    def _frame(
        self, class_id: int, pixels: bytes, width: int, height: int, source_part: bytes, offset_entry: bytes
    ) -> tuple[bytes, bytes, bytes]:
        image = self._encode_image(pixels, width, height)
        entries = b"".join(
            (
                self._class_part[class_id],
                self._image_head[len(image)],
                image,
                self._size_part[height << 16 | width],
                source_part,
                offset_entry,
            )
        )
        header, opening = self._frame_head[len(entries)]
        example = opening + entries
        return header, example, CRC.pack(masked_crc(example))


def picture_example(picture: StoredPicture, *, class_id: int, label: str, source: str, offset: int) -> bytes:
    """The Example of a stored picture."""
    return encode_example(
        {
            "image/class/label": class_id,
            "image/class/text": label.encode("utf-8"),
            "image/encoded": picture.data,
            "image/format": picture.image_format.encode("ascii"),
            "image/height": picture.height,
            "image/width": picture.width,
            "source/file": source.encode("utf-8"),
            "source/offset": offset,
        }
    )


def _offset_entries(block: RecordBlock) -> list[bytes]:
    """The entry `source/offset` of each record: seven bits a byte, a bit more in all but the last one (a varint)."""
    offsets = np.asarray(block.starts, np.uint64) + np.uint64(block.offset)
    shifts = np.arange(MAX_OFFSET_BYTES, dtype=np.uint64) * np.uint64(7)
    groups = offsets[:, None] >> shifts
    more = groups[:, 1:] > 0
    numbers = (groups & np.uint64(0x7F)).astype(np.uint8)
    numbers[:, :-1] |= more.astype(np.uint8) << 7
    packed = numbers.tobytes()
    sizes = (1 + more.sum(1)).tolist()
    return [
        OFFSET_HEADS[size] + packed[at : at + size]
        for at, size in zip(range(0, len(packed), MAX_OFFSET_BYTES), sizes, strict=True)
    ]


def _frame_head(size: int) -> tuple[bytes, bytes]:
    """The frame's header for an Example whose entries take `size` bytes, and the Example's own opening bytes."""
    opening = field(1, bytes(size))[:-size]
    return frame_header(len(opening) + size), opening


def _raw(pixels: bytes, width: int, height: int) -> bytes:
    return pixels
