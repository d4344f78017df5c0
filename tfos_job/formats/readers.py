"""The registered readers of datasets, by the name that `--dataset_name` takes: what is in records, and what follows.

A manifest names the reader of its split, and a checkpoint that of the split it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config import GNT, IMAGES
from tfos_job.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Reader:
    """The way in which records of one kind are read.

    Attributes:
      name: of `--dataset_name`.
      on_paper: whether images are ink on paper, cropped to it; `predict` looks for the ink of other pictures.
      antialias: whether images larger than `--image_size` are averaged, not sampled. Glyphs are not much larger, and
        keep the pixels that checkpoints were trained on; a sample of a photograph thirty times as large would be dots.
    """

    name: str
    on_paper: bool
    antialias: bool


READERS = {
    reader.name: reader
    for reader in (
        Reader(name=GNT, on_paper=True, antialias=False),
        Reader(name=IMAGES, on_paper=False, antialias=True),
    )
}


def resolve(requested: str | None, found: str, place: str) -> Reader:
    """The reader of a dataset.

    Args:
      requested: `--dataset_name`, if it is given.
      found: what the manifest says.
      place: the split's folder.

    Raises:
      SettingsError: another one is requested, or none of that name is registered.
    """
    if found not in READERS:
        raise SettingsError(
            f"made for the reader {found!r}", place=place, next_step=f"This version has {', '.join(READERS)}"
        )
    if requested not in (None, found):
        raise SettingsError(
            f"{place} was converted for the reader {found}",
            place=f"--dataset_name {requested}",
            next_step="Leave it out, or give another --dataset_dir",
        )
    return READERS[found]
