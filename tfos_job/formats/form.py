"""The form of the images that records are decoded to. Pure: a plan holds it, TensorFlow decodes to it."""

from __future__ import annotations

from dataclasses import dataclass

# Records that are decoded at a time. More does not pay (benchmarks/input.py); less costs tf.data's own work per group.
GROUP_SIZE = 128
_PHOTOGRAPHS = 8


@dataclass(frozen=True, kw_only=True)
class Form:
    """Images [S, S, C] of whole levels.

    Attributes:
      image_size: S, in pixels.
      num_channels: C, 1 for grey or 3 for RGB.
      antialias: `readers.Reader.antialias`: if an image is reduced, each pixel is the mean of those it replaces.
    """

    image_size: int
    num_channels: int = 1
    antialias: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, S, C)."""
        return self.image_size, self.image_size, self.num_channels

    @property
    def group_size(self) -> int:
        """Records that are decoded at a time. Of photographs a few: there are many such groups in memory."""
        return _PHOTOGRAPHS if self.antialias else GROUP_SIZE
