"""The flags of augmentation, and of `inspect`, which shows it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tfos_job.config.defaults import AUTO_FILL, BRIGHTNESS, CONTRAST, DEFAULT_IMAGE_SIZE, FILL_MODES
from tfos_job.config.flags import RECIPE, Flags, Subject, flag, path, refuse_both, require
from tfos_job.config.values import SPLIT_NAME


def _flag(help_text: str, default: Any = False, **metadata: Any) -> Any:
    """A flag of an augmentation."""
    return flag(help_text, default, bond=RECIPE, subject=Subject.AUGMENTATION, **metadata)


def _strength(help_text: str, maximum: float, **metadata: Any) -> Any:
    """A flag of an augmentation: 0, which is off, to `maximum`. Metadata: `const`, for a flag without a number."""
    return _flag(help_text, 0.0, minimum=0, maximum=maximum, off=0, **metadata)


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig(Flags):
    """Random changes of images, in training alone: flags that `train` and `inspect` share."""

    random_flip_up_down: bool = _flag("flip half of the images upside down")
    random_flip_left_right: bool = _flag("mirror half of the images")
    random_transpose: bool = _flag("exchange rows and columns of half of the images")
    random_rotation_90: bool = _flag("rotate by 0°, 90°, 180° or 270°, a quarter of the images each")
    random_rotation: float = _strength("rotate by up to ± this many degrees", 180)
    random_zoom: float = _strength("scale by 1 - this to 1 + this, about the centre", 0.9)
    random_crop: float = _strength(
        "cut off up to this fraction of the height and of the width, at any side, and scale the rest to the full size",
        0.9,
    )
    random_width_shift: float = _strength("shift horizontally by up to ± this fraction of the width", 1)
    random_height_shift: float = _strength("shift vertically by up to ± this fraction of the height", 1)
    random_shear: float = _strength("shear by up to ± this many degrees", 60)
    elastic_distortion: float = _strength(
        "displace pixels by smooth random fields with this standard deviation, as a fraction of the side", 0.2
    )
    elastic_sigma: float = _flag(
        "smoothness of --elastic_distortion: the sigma of a Gaussian, as a fraction of the side",
        0.08,
        minimum=0.02,
        maximum=1,
    )
    fill_mode: str = _flag(
        "pixels from beyond the border, with every flag that moves pixels: `constant` is --fill_value, `nearest` "
        "repeats the edge, `reflect` mirrors the image, `wrap` repeats it; `auto` is `constant` for grey images and "
        "`nearest` for colour",
        AUTO_FILL,
        choices=FILL_MODES,
    )
    fill_value: float = _flag(
        "brightness beyond the border with `constant`: 0 is black, 1 is white paper",
        1.0,
        minimum=0,
        maximum=1,
    )
    stroke_width: float = _strength("widen or narrow dark strokes by up to this many pixels (of --image_size)", 16)
    random_hue: float = _strength("colour only: turn hues by up to ± this fraction of the colour circle", 0.5)
    random_saturation: float = _strength("colour only: multiply saturation by 1 - this to 1 + this", 1)
    random_channel_shift: float = _strength("shift each channel by up to ± this (of 1)", 1)
    random_brightness: float = _strength(
        f"shift brightness by up to ± this (of 1); {BRIGHTNESS} if the flag has no number", 1, const=BRIGHTNESS
    )
    random_contrast: float = _strength(
        f"multiply contrast by 1 - this to 1 + this; {CONTRAST} if the flag has no number", 1, const=CONTRAST
    )
    random_gamma: float = _strength("raise values to a power from 1 / (1 + this) to 1 + this", 10)
    random_erasing: float = _strength(
        "cover a rectangle with sides of up to this fraction: grey images with the colour of paper, colour images with "
        "their mean",
        1,
    )

    @property
    def augmentation(self) -> AugmentationConfig:
        """These flags alone, of a command that has others as well."""
        return AugmentationConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(AugmentationConfig)})

    def require_channels(self, num_channels: int) -> None:
        """Raises SettingsError for what is not defined for images of `num_channels`."""
        for name in ("random_hue", "random_saturation"):
            require(
                num_channels == 3 or not getattr(self, name),
                name,
                "given for grey images, which have no colours to change",
                "Leave it out; --random_brightness, --random_contrast and --random_gamma are for grey ones, too",
            )


@dataclass(frozen=True, kw_only=True)
class InspectConfig(AugmentationConfig):
    """`inspect`: pictures of a split, before and after augmentation."""

    dataset_dir: str = path("folder of the dataset")
    dataset_split_name: str = flag("split to draw", "train", form=SPLIT_NAME)
    output_dir: str = path("folder to write the pictures to", "inspect")
    train_dir: str | None = path(
        "show the images as this run's network sees them in training: with its image size, augmentation and "
        "normalization",
        None,
    )
    image_size: int | None = flag(
        f"side in pixels that images are resized to (default: the run's with --train_dir, else {DEFAULT_IMAGE_SIZE})",
        None,
        minimum=1,
    )
    num_images: int = flag("records on the contact sheet, chosen at random", 24, minimum=1, maximum=1000)
    seed: int = flag("random seed of the choice and of augmentation; a seed gives the same pictures", 0, minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_dir is not None:
            plain = dataclasses.asdict(AugmentationConfig()) | {"image_size": None}
            for name, value in plain.items():
                refuse_both(getattr(self, name) != value, name, "train_dir, which has it from the run")

    @property
    def side(self) -> int:
        """S, in pixels, unless a run defines it."""
        return self.image_size or DEFAULT_IMAGE_SIZE
