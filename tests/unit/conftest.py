"""Fixtures for tests of more than one module."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfos_job.formats import tf_example, tfrecord

WriteShard = Callable[..., str]


def png_bytes(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def write_shard(tmp_path: Path) -> WriteShard:
    """Writes glyphs, each uint8 [h, w] with a label, as one TFRecord file; returns its path."""

    def write(name: str, glyphs: Sequence[tuple[np.ndarray, int]], image_format: str = "raw") -> str:
        path = tmp_path / name
        with path.open("wb") as stream:
            for pixels, label in glyphs:
                example = tf_example.encode_example(
                    {
                        "image/encoded": pixels.tobytes() if image_format == "raw" else png_bytes(pixels),
                        "image/format": image_format.encode(),
                        "image/height": pixels.shape[0],
                        "image/width": pixels.shape[1],
                        "image/class/label": label,
                    }
                )
                tfrecord.write_record(stream, example)
        return str(path)

    return write
