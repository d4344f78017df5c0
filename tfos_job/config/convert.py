"""The flags of `convert`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.defaults import DEFAULT_CHARSET_SIZE
from tfos_job.config.flags import Flags, Subject, flag, path, refuse_both, require
from tfos_job.config.values import SPLIT_NAME, either


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(Flags):
    """`convert`: one split of a dataset, from GNT shards or folders of images to TFRecords."""

    gnt_dir: str | None = path(
        "folder of *.gnt files and of *.zip archives with *.gnt members (read recursively)",
        None,
        subject=Subject.INPUT,
        one_of="source",
    )
    image_dir: str | None = path(
        "folder of PNG, JPEG and GIF files (read recursively); an image's class is the name of "
        "the folder that contains it",
        None,
        subject=Subject.INPUT,
        one_of="source",
    )
    labels_csv: str | None = path(
        "with --image_dir: a UTF-8 file of two columns, path below --image_dir and class; images that are not in it "
        "are left out",
        None,
        metavar="FILE",
        subject=Subject.INPUT,
    )
    num_channels: int = flag(
        "with --image_dir: channels of the network's input, 1 for grey or 3 for RGB",
        1,
        choices=(1, 3),
        subject=Subject.INPUT,
    )
    dataset_dir: str = path("folder of the dataset", subject=Subject.DATASET)
    dataset_split_name: str = flag("split to write", "train", form=SPLIT_NAME, subject=Subject.DATASET)
    charset_size: int | None = flag(
        "classes: the first N of GB2312 level 1 (default: the dataset's classes, or 3755 for a new one with --gnt_dir)",
        None,
        minimum=1,
        maximum=DEFAULT_CHARSET_SIZE,
        next_step="GB2312 level 1 has 3,755 characters; give --charset FILE for others",
        subject=Subject.CLASSES,
    )
    charset: str | None = path(
        "classes: a UTF-8 file of characters (with --image_dir of names, one a line), or `auto` for those in the data "
        "(default: the dataset's classes, or `auto` for a new one with --image_dir)",
        None,
        metavar="FILE|auto",
        words=("auto",),
        subject=Subject.CLASSES,
    )
    image_format: str | None = flag(
        "how pixels are stored: `raw` (GNT files only), `png`, or `keep` (images only), which stores files as they are "
        "if training can read them (default: `raw` for GNT files, `keep` for images)",
        None,
        choices=("raw", "png", "keep"),
        subject=Subject.RECORDS,
    )
    on_bad_record: str = flag(
        "action on unreadable bytes: `fail` publishes nothing, `quarantine` sets them aside",
        "fail",
        choices=("fail", "quarantine"),
        subject=Subject.RECORDS,
    )
    max_bad_fraction: float = flag(
        "with `--on_bad_record quarantine`: the job fails if more than this fraction of the bytes, or of the images, "
        "is unreadable",
        0.01,
        minimum=0,
        maximum=1,
        subject=Subject.RECORDS,
    )
    target_shard_mb: int = flag(
        "MiB of input files per shard; smaller if there would be fewer than 8 shards",
        128,
        minimum=1,
        subject=Subject.RECORDS,
    )
    prune: bool = flag("drop the records of source files that no longer exist", False, subject=Subject.DATASET)
    compact: bool = flag("merge all generations of the split into one", False, subject=Subject.DATASET)
    shuffle_at_write: bool = flag(
        "mix the records of all source files over all shards; a later change of the input then needs --overwrite",
        False,
        subject=Subject.RECORDS,
    )
    seed: int = flag("random seed of --shuffle_at_write", 0, minimum=0, subject=Subject.RECORDS)
    overwrite: bool = flag("rebuild the split if its input or settings have changed", False, subject=Subject.DATASET)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_fitting_input()
        for name in ("prune", "compact"):
            refuse_both(
                self.shuffle_at_write and getattr(self, name),
                name,
                "shuffle_at_write",
                "A mixed split is always built as a whole: give --overwrite where its input has changed",
            )
        refuse_both(self.charset is not None and self.charset_size is not None, "charset", "charset_size")

    def _require_fitting_input(self) -> None:
        of_images = self.image_dir is not None
        formats = ("keep", "png") if of_images else ("raw", "png")
        require(
            self.stored_format in formats,
            "image_format",
            f"{self.image_format!r} is not {either(formats)}, as it is with {self.input_flag}",
        )
        only_with_images = {"labels_csv": self.labels_csv is not None, "num_channels": self.num_channels != 1}
        only_with_gnt = {"prune": self.prune, "compact": self.compact}
        for name, is_given in (only_with_gnt if of_images else only_with_images).items():
            require(
                not is_given,
                name,
                f"given together with {self.input_flag}",
                "A split of images is always built as a whole: give --overwrite where it has changed"
                if of_images
                else "Leave it out, or give --image_dir",
            )

    @property
    def input_flag(self) -> str:
        """The flag that names the folder that is read."""
        return "--gnt_dir" if self.image_dir is None else "--image_dir"

    @property
    def input_dir(self) -> str:
        """The folder that is read."""
        return (self.gnt_dir if self.image_dir is None else self.image_dir) or ""

    @property
    def stored_format(self) -> str:
        """`--image_format`, or its default for the input."""
        return self.image_format or ("raw" if self.image_dir is None else "keep")
