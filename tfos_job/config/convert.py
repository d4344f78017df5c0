"""The flags of `convert`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.defaults import DEFAULT_CHARSET_SIZE
from tfos_job.config.flags import Flags, Subject, flag, path, refuse_both, require
from tfos_job.config.values import SPLIT_NAME, either
from tfos_job.errors import FlagError

_INPUTS = ("gnt_dir", "image_dir", "tfrecord_dir")
_FORMATS = {"gnt_dir": ("raw", "png"), "image_dir": ("keep", "png"), "tfrecord_dir": ("keep",)}
"""Values of --image_format for each input, the default first."""
_GOES_WITH = {
    "labels_csv": ("image_dir",),
    "labels": ("tfrecord_dir",),
    "num_channels": ("image_dir", "tfrecord_dir"),
    "prune": ("gnt_dir",),
    "compact": ("gnt_dir",),
    "shuffle_at_write": ("gnt_dir", "image_dir"),
    "charset": ("gnt_dir", "image_dir"),
    "charset_size": ("gnt_dir", "image_dir"),
}
"""Inputs of the flags that do not go with all of them."""


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(Flags):
    """`convert`: one split of a dataset, of TFRecords made from GNT shards or images, or adopted as they are."""

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
    tfrecord_dir: str | None = path(
        "folder of TF-Slim's TFRecords (such as train-00000-of-01024); they are adopted where they are: read through, "
        "not copied",
        None,
        subject=Subject.INPUT,
        one_of="source",
    )
    labels: str | None = path(
        "with --tfrecord_dir: a UTF-8 file of the classes, ID:NAME in each line, or a name in each (default: "
        "labels.txt in that folder, if it is there)",
        None,
        metavar="FILE",
        subject=Subject.INPUT,
    )
    num_channels: int | None = flag(
        "with --image_dir or --tfrecord_dir: channels of the network's input, 1 for grey or 3 for RGB (default: 1 with "
        "--image_dir; with --tfrecord_dir those of the dataset's other splits, or 1 if all pictures are grey, else 3)",
        None,
        choices=(1, 3),
        subject=Subject.INPUT,
    )
    dataset_dir: str = path(  # None until `__post_init__`
        "folder of the dataset (default: with --tfrecord_dir that folder; else it must be given)",
        None,
        subject=Subject.DATASET,
    )
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
        dataset_dir: str | None = self.dataset_dir
        if dataset_dir is None and self.tfrecord_dir is None:
            raise FlagError("it is needed", place="--dataset_dir")
        object.__setattr__(self, "dataset_dir", dataset_dir or self.tfrecord_dir)
        formats = _FORMATS[self._input]
        require(
            self.stored_format in formats,
            "image_format",
            f"{self.image_format!r} is not {either(formats)}, as it is with {self.input_flag}",
        )
        for name, inputs in _GOES_WITH.items():
            is_given = getattr(self, name) not in ((None, False, 1) if name == "num_channels" else (None, False))
            require(
                not is_given or self._input in inputs,
                name,
                f"given together with {self.input_flag}",
                "A split of images is always built as a whole: give --overwrite where it has changed"
                if name in ("prune", "compact") and self.image_dir is not None
                else f"It goes with {either([f'--{one}' for one in inputs])}: leave it out",
            )
        require(
            self.tfrecord_dir is None or self.on_bad_record == "fail",
            "on_bad_record",
            "given together with --tfrecord_dir",
            "Leave it out: records are adopted where they are, so that none can be set aside",
        )

    @property
    def input_flag(self) -> str:
        """The flag that names the folder that is read."""
        return f"--{self._input}"

    @property
    def input_dir(self) -> str:
        """The folder that is read."""
        return getattr(self, self._input) or ""

    @property
    def of_pictures(self) -> bool:
        """True if picture files are read, not glyphs."""
        return self.gnt_dir is None

    @property
    def channels(self) -> int:
        """`--num_channels`, or its default with --image_dir."""
        return self.num_channels or 1

    @property
    def stored_format(self) -> str:
        """`--image_format`, or its default for the input."""
        return self.image_format or _FORMATS[self._input][0]

    @property
    def _input(self) -> str:
        return next((name for name in _INPUTS if getattr(self, name) is not None), _INPUTS[0])
