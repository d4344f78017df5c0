"""The proof of a picture that another program has stored: what training sees in it, and whether others see the same."""

from __future__ import annotations

from typing import NamedTuple

from tfos_job.formats import decoder, image_files
from tfos_job.formats.image_files import TrainingView
from tfos_job.formats.picture_head import read_head


class AdoptedPicture(NamedTuple):
    """A picture that training reads.

    Attributes:
      pixels: by which equal pictures are found: Pillow's, row by row, or a digest of what training sees.
      oddity: in words, if other programs see another picture in the file, or nothing whole; else empty.
    """

    pixels: bytes
    height: int
    width: int
    oddity: str


def prove(encoded: bytes, image_format: str, training_view: TrainingView | None = None) -> AdoptedPicture:
    """Decodes a picture.

    Unlike a converted one it may be turned by EXIF, transparent, or cut off in its last rows: training has seen such
    pictures so ever since they were written, and nothing else can be made of them where they are.

    Args:
      encoded: the file.
      image_format: one of `image_files.STORED_FORMATS`.
      training_view: as in `image_files.read`.

    Raises:
      ValueError: training cannot read it.
      JobError: what the decoder raises.
    """
    head = read_head(encoded)
    view = training_view or decoder.of_this_process().digest
    try:
        image = image_files.decode(encoded, image_format, training_view=view)
    except ValueError as error:
        seen = view(encoded, image_format)
        return AdoptedPicture(seen, head.height, head.width, f"training reads it, unlike other programs: {error}")
    return AdoptedPicture(image.tobytes(), head.height, head.width, "")
