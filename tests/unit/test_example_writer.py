from __future__ import annotations

import io

import numpy as np
import pytest

from tfos_job.formats import gnt, gnt_reader, tf_example, tfrecord
from tfos_job.formats.example_writer import GlyphEncoder

CHARACTERS = ("阿", "啊", "!")


def block_of(offset: int, *shapes: tuple[int, int]) -> gnt_reader.RecordBlock:
    stream = io.BytesIO()
    for index, shape in enumerate(shapes):
        gnt.write(stream, gnt.encode_tag("啊"), np.full(shape, index, np.uint8))
    (block,) = gnt_reader.RangeReader(io.BytesIO(stream.getvalue()), "a.gnt", start=offset)
    return block


@pytest.mark.parametrize("offset", [0, 127, 128, 16_383, 16_384, (1 << 21) - 30, 1 << 28, 1 << 40, (1 << 49) - 30])
def test_the_prepared_parts_give_the_same_bytes(offset: int) -> None:
    """What is looked up and vectorised is what the plain encoder makes, for every length of number that occurs."""
    shapes = [(1, 1), (8, 300), (300, 8), (200, 100), (8, 300)]
    block = block_of(offset, *shapes)
    encoder = GlyphEncoder(CHARACTERS, "raw")
    for class_ids in ([1, 2, 0, 1, 2], [None, 2, None, 1, 1]):  # the second time from parts that the first one kept
        expected = io.BytesIO()
        for record, class_id in zip(block, class_ids, strict=True):
            if class_id is None:
                continue
            features: dict[str, bytes | int] = {
                "image/encoded": record.pixels,
                "image/format": b"raw",
                "image/height": record.height,
                "image/width": record.width,
                "image/class/label": class_id,
                "image/class/text": CHARACTERS[class_id].encode(),
                "source/file": "雨/001.gnt".encode(),
                "source/offset": record.offset,
            }
            tfrecord.write_record(expected, tf_example.encode_example(features))
        assert encoder.encode(block, class_ids, "雨/001.gnt") == expected.getvalue()
