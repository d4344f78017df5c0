"""One frozen dataclass a stage: it refuses bad values and bad combinations before anything is started.

A field's metadata is the whole story of its flag (`cli.py` reads it): the help text with its unit, the choices, and for
`train` what a run that goes on does with it (`Bond`). A field without a default is a required flag, unless a run may
have it; its name is the flag's name.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tfos_job.errors import SettingsError

DEFAULT_CHARSET_SIZE = 3755
DEFAULT_IMAGE_SIZE = 64
GNT, IMAGES = "gnt", "images"
DATASET_NAMES = (GNT, IMAGES)
"""The readers of datasets; formats/readers.py says what they are."""
DEFAULT_MAX_NUMBER_OF_STEPS = 16_002
NETWORKS = {"chinese_rec": 64, "hanzi_net": 64, "inception_v3": 299}
"""The registered networks, and the side of the images, in pixels, that each one is made for."""
DECAY_TYPES = EXPONENTIAL, COSINE, FIXED = "exponential", "cosine", "fixed"
PRELOADED, FILES = "preloaded", "files"
NO_NORMALIZATION, PER_IMAGE, DATASET, PCA, ZCA = NORMALIZATIONS = ("none", "per_image", "dataset", "pca", "zca")
# Values of an image, up to which it is whitened: the matrix has that many squared, 64 MiB in float32. It lies in every
# checkpoint, and a multiplication by it is done for each image.
MAX_WHITENED_VALUES = 4096
BRIGHTNESS, CONTRAST = 0.3, 0.2  # the seed job's
# A worker's decoded part, one byte a pixel, up to which `--input_mode auto` keeps it in memory. All of HWDB1.1's
# training split (0.9 million glyphs of 64 × 64) divided between two workers is below it.
PRELOAD_LIMIT_BYTES = 2 << 30
# What a worker's shuffle buffer may hold, with `--input_mode files`, where records are larger than those of glyphs.
BUFFER_LIMIT_BYTES = 512 << 20
_GLYPH_LIMIT_BYTES = 16 << 10
_PORT_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})", re.ASCII)
_OWN_NETWORK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Config = TypeVar("Config")


class Bond(enum.Enum):
    """What a flag of `train` is to a run that is there already: see `run/resume.py`."""

    RECIPE = "what is learned and how: the run's own; another value is refused without --change_settings"
    EXTENT = "where and how much: the run's own, and free to change"
    ORIGIN = "where a run begins: its own until it has a checkpoint, of no account then"
    COMMAND = "this command alone"


RECIPE, EXTENT, ORIGIN, COMMAND = Bond.RECIPE, Bond.EXTENT, Bond.ORIGIN, Bond.COMMAND
LENGTHS = ("max_number_of_steps", "epoch")
"""Two ways to say the same: one that is given replaces the other one of the run."""


def _flag(help_text: str, default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A dataclass field that is also a flag.

    Metadata: `choices`, `metavar`, `nargs` (then it is positional), `const` (its value where none is given with it),
    `bond` (a `Bond`, of each flag of `train`), `path` (see `_path`).
    """
    return field(default=default, metadata={"help": help_text, **metadata})


def _path(help_text: str, default: Any = dataclasses.MISSING, *, words: tuple[str, ...] = (), **metadata: Any) -> Any:
    """A flag whose value is a path, or one of `words`."""
    return _flag(help_text, default, path=words, **metadata)


def _strength(help_text: str, limit: float, **metadata: Any) -> Any:
    """A flag of an augmentation: 0, which is off, to `limit`. Metadata: `const`, for a flag without a number."""
    return _flag(help_text, 0.0, limit=limit, bond=RECIPE, **metadata)


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as JSON values."""
    return dataclasses.asdict(config)


def paths(config: Any) -> dict[str, str]:
    """The flags of a command that are paths, and have one."""
    found = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if "path" in item.metadata and isinstance(value, str) and value and value not in item.metadata["path"]:
            found[item.name] = value
    return found


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """The inverse of `to_dict`.

    Raises:
      SettingsError: a key the configuration does not have, or a bad value.
    """
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise SettingsError(
            f"unknown setting{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}",
            place=kind.__name__,
            next_step=f"Known: {', '.join(sorted(known))}",
        )
    return kind(**values)


def _require(condition: bool, flag: str, fact: str, next_step: str = "") -> None:
    if not condition:
        raise SettingsError(fact, place=f"--{flag}", next_step=next_step)


def _require_split_name(flag: str, value: str) -> None:
    _require(
        bool(_SPLIT_NAME.fullmatch(value)),
        flag,
        f"{value!r} is not a split name: it becomes a folder",
        "Use letters, digits, '-', '_' and '.', such as train or test",
    )


def _scopes(value: str) -> tuple[str, ...]:
    return tuple(scope.strip() for scope in value.split(",") if scope.strip())


def _port_range(value: str | None) -> tuple[int, int] | None:
    """First and last port of `--port_range`."""
    if value is None:
        return None
    match = _PORT_RANGE.fullmatch(value)
    low, high = (int(match[1]), int(match[2])) if match else (0, 0)
    _require(
        1024 <= low <= high <= 65535,
        "port_range",
        f"{value!r} is not two ports from 1024 to 65535 with a '-' between them, the smaller first",
        "Write it as 40000-40099",
    )
    return low, high


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """`synth`: GNT shards of rendered characters, one shard a synthetic writer."""

    gnt_dir: str = _path("folder to write the GNT shards to")
    charset_size: int = _flag("number of classes: the first N of GB2312 level 1", 30)
    num_writers: int = _flag("number of synthetic writers, one GNT file each", 40)
    first_writer: int = _flag("number of the first writer; writers of other numbers have other hands", 1)
    seed: int = _flag("the same seed gives the same bytes", 0)

    def __post_init__(self) -> None:
        _require(
            1 <= self.charset_size <= DEFAULT_CHARSET_SIZE, "charset_size", f"{self.charset_size} is not 1 to 3755"
        )
        _require(self.num_writers >= 1, "num_writers", f"{self.num_writers} is less than 1")
        _require(self.first_writer >= 0, "first_writer", f"{self.first_writer} is less than 0")


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """`convert`: one split of a dataset, from GNT shards or folders of images to TFRecords."""

    gnt_dir: str | None = _path("folder of *.gnt files and *.zip archives of such (read recursively)", None)
    image_dir: str | None = _path(
        "folder of PNG, JPEG and GIF files (read recursively), instead of --gnt_dir; the folder that an image lies in "
        "is named for its class",
        None,
    )
    labels_csv: str | None = _path(
        "with --image_dir: a UTF-8 file of two columns, path below --image_dir and class; others are left out",
        None,
        metavar="FILE",
    )
    num_channels: int = _flag("with --image_dir: what the network is to see, 1 for grey or 3 for RGB", 1)
    dataset_dir: str = _path("folder of the dataset")
    dataset_split_name: str = _flag("the split to write", "train")
    charset_size: int | None = _flag(
        "classes: the first N of GB2312 level 1; 3755 where the dataset has no charset yet and --gnt_dir is given", None
    )
    charset: str | None = _path(
        "classes: a UTF-8 file of characters (with --image_dir of names, one a line), or `auto` for those the data "
        "holds, which is what --image_dir does where the dataset has no charset yet",
        None,
        metavar="FILE|auto",
        words=("auto",),
    )
    image_format: str | None = _flag(
        "how pixels are stored: of GNT files `raw` (the default) or `png`; of images `keep` (the default), that is "
        "files as they are, where training reads them, or `png`",
        None,
        choices=("raw", "png", "keep"),
    )
    on_bad_record: str = _flag(
        "on unreadable bytes: `fail` publishes nothing, `quarantine` sets them aside",
        "fail",
        choices=("fail", "quarantine"),
    )
    max_bad_fraction: float = _flag(
        "fraction of the bytes that are read, and of the images as well, that quarantine may set aside before the job "
        "fails",
        0.01,
    )
    target_shard_mb: int = _flag(
        "MiB of input files that go into a shard; less where there would be fewer than 8 shards", 128
    )
    prune: bool = _flag("drop the records of source files that are not there any more", False)
    compact: bool = _flag("make one generation of many", False)
    shuffle_at_write: bool = _flag(
        "mix the records of all source files over all shards; later changes of the input need --overwrite then", False
    )
    seed: int = _flag("of --shuffle_at_write", 0)
    overwrite: bool = _flag("build the split anew where its input or settings have changed", False)

    def __post_init__(self) -> None:
        self._require_one_input()
        _require_split_name("dataset_split_name", self.dataset_split_name)
        _require(self.target_shard_mb >= 1, "target_shard_mb", f"{self.target_shard_mb} is less than 1")
        _require(self.seed >= 0, "seed", f"{self.seed} is less than 0")
        for name in ("prune", "compact"):
            _require(
                not (self.shuffle_at_write and getattr(self, name)),
                name,
                "given together with --shuffle_at_write",
                "A mixed split is always built as a whole: give --overwrite where its input has changed",
            )
        _require(
            self.charset is None or self.charset_size is None,
            "charset",
            "given together with --charset_size",
            "Give one of them",
        )
        if self.charset_size is not None:
            _require(
                1 <= self.charset_size <= DEFAULT_CHARSET_SIZE,
                "charset_size",
                f"{self.charset_size} is not 1 to 3755",
                "GB2312 level 1 has 3,755 characters; give --charset FILE for others",
            )
        _require(
            self.on_bad_record in ("fail", "quarantine"),
            "on_bad_record",
            f"{self.on_bad_record!r} is not fail or quarantine",
        )
        _require(0.0 <= self.max_bad_fraction <= 1.0, "max_bad_fraction", f"{self.max_bad_fraction} is not in 0 to 1")

    def _require_one_input(self) -> None:
        _require(
            (self.gnt_dir is None) != (self.image_dir is None),
            "image_dir",
            "not given, and neither is --gnt_dir" if self.image_dir is None else "given together with --gnt_dir",
            "Give one of them",
        )
        of_images = self.image_dir is not None
        formats = ("keep", "png") if of_images else ("raw", "png")
        _require(
            self.stored_format in formats,
            "image_format",
            f"{self.image_format!r} is not {' or '.join(formats)}, as it is with {self.input_flag}",
        )
        _require(self.num_channels in (1, 3), "num_channels", f"{self.num_channels} is not 1 or 3")
        only_with_images = {"labels_csv": self.labels_csv is not None, "num_channels": self.num_channels != 1}
        only_with_gnt = {"prune": self.prune, "compact": self.compact}
        for name, is_given in (only_with_gnt if of_images else only_with_images).items():
            _require(
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
        """`--image_format`, or the default of what is read."""
        return self.image_format or ("raw" if self.image_dir is None else "keep")


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """`verify`: proves the splits of a dataset, and that they have nothing in common."""

    dataset_dir: str = _path("folder of the dataset")
    dataset_split_name: str = _flag(
        "the split to prove, or `all`, which compares the pixels of the splits as well", "all", metavar="NAME|all"
    )
    gnt_dir: str | None = _path(
        "compare the GNT files with what was converted: the folder they are in, or `auto` for the one that each split "
        "was made from, all of them from GNT files; not read where it is not given",
        None,
        metavar="DIR|auto",
        words=("auto",),
    )

    def __post_init__(self) -> None:
        _require_split_name("dataset_split_name", self.dataset_split_name)


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """What is done to images in training alone: the flags of each command that shows or uses it."""

    random_flip_up_down: bool = _flag("flip half of the images upside down", False, bond=RECIPE)
    random_flip_left_right: bool = _flag("mirror half of the images", False, bond=RECIPE)
    random_transpose: bool = _flag("exchange rows and columns of half of the images", False, bond=RECIPE)
    random_rotation_90: bool = _flag("turn images by 0°, 90°, 180° or 270°, each a quarter of them", False, bond=RECIPE)
    random_rotation: float = _strength("turn by up to ± so many degrees", 180)
    random_zoom: float = _strength("scale by 1 - this to 1 + this, from the middle", 0.9)
    random_crop: float = _strength(
        "cut off up to this fraction of the height and of the width, anywhere, and scale what is left to the whole", 0.9
    )
    random_width_shift: float = _strength("shift to the side by up to ± this fraction of the width", 1)
    random_height_shift: float = _strength("shift up or down by up to ± this fraction of the height", 1)
    random_shear: float = _strength("slant by up to ± so many degrees", 60)
    elastic_distortion: float = _strength(
        "move each place by smooth random fields, whose standard deviation is this fraction of the side", 0.2
    )
    elastic_sigma: float = _flag(
        "how smooth those are: the sigma of a Gaussian, as a fraction of the side", 0.08, bond=RECIPE
    )
    stroke_width: float = _strength("make dark strokes up to so many pixels (of --image_size) broader or narrower", 16)
    random_hue: float = _strength("colour only: turn hues by up to ± this fraction of the colour circle", 0.5)
    random_saturation: float = _strength("colour only: multiply saturation by 1 - this to 1 + this", 1)
    random_channel_shift: float = _strength("shift each channel by up to ± this (of 1)", 1)
    random_brightness: float = _strength(
        f"shift brightness by up to ± this (of 1); {BRIGHTNESS} where no number is given", 1, const=BRIGHTNESS
    )
    random_contrast: float = _strength(
        f"multiply contrast by 1 - this to 1 + this; {CONTRAST} where no number is given", 1, const=CONTRAST
    )
    random_gamma: float = _strength("raise values to a power from 1 / (1 + this) to 1 + this", 10)
    random_erasing: float = _strength(
        "cover a rectangle with sides of up to this fraction, with paper, or with the mean of what is in colour", 1
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(AugmentationConfig):
            value, limit = getattr(self, item.name), item.metadata.get("limit")
            if value is True and "const" in item.metadata:
                # The configurations of older runs have it so.
                object.__setattr__(self, item.name, item.metadata["const"])
            elif limit is not None:
                _require(0 <= value <= limit, item.name, f"{value} is not in 0 to {limit}")
        _require(0.02 <= self.elastic_sigma <= 1, "elastic_sigma", f"{self.elastic_sigma} is not in 0.02 to 1")

    @property
    def augmentation(self) -> dict[str, Any]:
        """The fields of `data.augment.Augmentation`, as JSON values."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(AugmentationConfig)}

    def require_channels(self, num_channels: int) -> None:
        """Refuses what is not defined for images of `num_channels`."""
        for name in ("random_hue", "random_saturation"):
            _require(
                num_channels == 3 or not getattr(self, name),
                name,
                "given for grey images, which have no colours to change",
                "Leave it out; --random_brightness, --random_contrast and --random_gamma are for grey ones, too",
            )


@dataclass(frozen=True, kw_only=True)
class InspectConfig(AugmentationConfig):
    """`inspect`: pictures of a split, before and after augmentation."""

    dataset_dir: str = _path("folder of the dataset")
    dataset_split_name: str = _flag("the split to look at", "train")
    output_dir: str = _path("folder to write the pictures to", "inspect")
    train_dir: str | None = _path(
        "show the images as this run's network sees them in training: of its size, with its augmentation and "
        "normalization",
        None,
    )
    image_size: int | None = _flag(
        f"images are resized to this many pixels square; {DEFAULT_IMAGE_SIZE} where it is not given, nor --train_dir",
        None,
    )
    num_images: int = _flag("records on the contact sheet, chosen at random", 24)
    seed: int = _flag("of the choice and of augmentation: the same seed gives the same pictures", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_split_name("dataset_split_name", self.dataset_split_name)
        _require(self.image_size is None or self.image_size >= 1, "image_size", f"{self.image_size} is less than 1")
        _require(self.num_images >= 1, "num_images", f"{self.num_images} is less than 1")
        if self.train_dir is not None:
            plain = AugmentationConfig().augmentation | {"image_size": None}
            for name, value in plain.items():
                _require(
                    getattr(self, name) == value,
                    name,
                    "given together with --train_dir, which has it from the run",
                    "Give one of them",
                )
        _require(self.num_images <= 1000, "num_images", f"{self.num_images} is more than 1000")
        _require(self.seed >= 0, "seed", f"{self.seed} is less than 0")

    @property
    def side(self) -> int:
        """S, in pixels, where no run says it."""
        return self.image_size or DEFAULT_IMAGE_SIZE


@dataclass(frozen=True, kw_only=True)
class TrainConfig(AugmentationConfig):
    """`train`: one run. Flag names are TF-Slim's and the seed job's."""

    dataset_dir: str = _path("folder of the dataset", bond=EXTENT)
    train_dir: str = _path("folder of the run: checkpoints, summaries, report", bond=COMMAND)
    dataset_name: str | None = _flag(
        "the reader that the dataset is to be of, else the run is refused: `convert` wrote down which one it is, and "
        "that one is used, with or without this flag",
        None,
        choices=DATASET_NAMES,
        bond=EXTENT,
    )
    dataset_split_name: str = _flag("the split to train on", "train", bond=RECIPE)
    validation_split_name: str | None = _flag(
        "the split to evaluate on every --eval_steps and at the end; none where it is not given", None, bond=RECIPE
    )
    model_name: str = _flag(
        f"network: {', '.join(NETWORKS)}, or one of your own as package.module:function",
        "chinese_rec",
        metavar="NAME|MODULE:FUNCTION",
        bond=RECIPE,
    )
    max_number_of_steps: int | None = _flag(
        f"global steps, over all workers; {DEFAULT_MAX_NUMBER_OF_STEPS} where --epoch is not given either",
        None,
        bond=EXTENT,
    )
    epoch: int | None = _flag("passes over the split, instead of --max_number_of_steps", None, bond=EXTENT)
    batch_size: int = _flag("images a step and worker", 128, bond=RECIPE)
    num_executors: int = _flag("nodes: parameter servers and workers together", 2, bond=EXTENT)
    num_ps_tasks: int = _flag("parameter servers", 1, bond=EXTENT)
    ps_place: str = _flag(
        "where parameter servers run: in executors, or as processes on the driver's host; `auto` is the driver's where "
        "workers have GPUs on a cluster, since no GPU is held there",
        "auto",
        choices=("auto", "executor", "driver"),
        bond=EXTENT,
    )
    num_gpus: int = _flag("GPUs a worker: 0 or 1", 0, bond=EXTENT)
    allow_cpu: bool = _flag(
        "a worker that was given a GPU, and whose TensorFlow sees none, goes on without", False, bond=EXTENT
    )
    port_range: str | None = _flag(
        "first and last port to listen on, for firewalls; any free ones where it is not given",
        None,
        metavar="LOW-HIGH",
        bond=EXTENT,
    )
    image_size: int | None = _flag(
        "images are resized to this many pixels square; where it is not given "
        + ", ".join(f"{size} for {name}" for name, size in NETWORKS.items())
        + f", {DEFAULT_IMAGE_SIZE} for your own",
        None,
        bond=RECIPE,
    )
    checkpoint_path: str | None = _path(
        "begin with the weights of another training, at step 0: a checkpoint, a run's folder, or a file of Keras's "
        "(.weights.h5, .h5); of no account once the run has checkpoints of its own",
        None,
        bond=ORIGIN,
    )
    checkpoint_exclude_scopes: str = _flag(
        "comma-separated beginnings of layers' names that keep fresh weights with --checkpoint_path, such as `fc2`",
        "",
        bond=ORIGIN,
    )
    trainable_scopes: str = _flag(
        "comma-separated beginnings of the names of layers to train; all where none is", "", bond=RECIPE
    )
    learning_rate: float = _flag(
        "Adam's learning rate at the start; its highest one with --warmup_steps", 2e-4, bond=RECIPE
    )
    learning_rate_decay_type: str = _flag(
        "`exponential` by --learning_rate_decay_factor, `cosine` to 0 at the last step, or `fixed`",
        "exponential",
        choices=DECAY_TYPES,
        bond=RECIPE,
    )
    learning_rate_decay_factor: float = _flag("the learning rate is multiplied by this ...", 0.97, bond=RECIPE)
    decay_steps: int = _flag("... every so many steps (staircase)", 2000, bond=RECIPE)
    warmup_steps: int = _flag("steps over which the learning rate rises from 0 first", 0, bond=RECIPE)
    label_smoothing: float = _flag("share of a label that is spread over all classes", 0.0, bond=RECIPE)
    keep_prob: float = _flag("probability that dropout keeps a unit; 1 turns dropout off", 0.8, bond=RECIPE)
    save_steps: int | None = _flag("steps between checkpoints; the last step is always saved", 1000, bond=EXTENT)
    save_seconds: int | None = _flag("seconds between checkpoints, beside --save_steps", 600, bond=EXTENT)
    eval_steps: int = _flag("steps between evaluations on the validation split; 0 for the end alone", 1000, bond=EXTENT)
    restore: str = _path(
        "`auto` resumes the run in --train_dir; `none` refuses a folder with checkpoints; PATH starts from that one",
        "auto",
        metavar="auto|none|PATH",
        words=("auto", "none"),
        bond=ORIGIN,
    )
    overwrite: bool = _flag(
        "begin anew: clear --train_dir, as soon as nothing that can be refused is left", False, bond=COMMAND
    )
    change_settings: bool = _flag(
        "go on with a run with the other recipe that is given: it is named, and kept with the attempt",
        False,
        bond=COMMAND,
    )
    seed: int = _flag("of initial weights, order and augmentation", 0, bond=RECIPE)
    normalization: str = _flag(
        "`per_image` gives each image mean 0 and standard deviation 1, `dataset` each channel those of the training "
        "split; `pca` and `zca` whiten whole images",
        NO_NORMALIZATION,
        choices=NORMALIZATIONS,
        bond=RECIPE,
    )
    whitening_epsilon: float = _flag("added to the variances that `pca` and `zca` divide by", 0.01, bond=RECIPE)
    input_mode: str = _flag(
        "`preloaded` decodes a worker's records once and keeps them in its memory, `files` reads them in each epoch; "
        f"`auto` preloads where no worker needs more than {PRELOAD_LIMIT_BYTES >> 30} GiB for it",
        "auto",
        choices=("auto", PRELOADED, FILES),
        bond=EXTENT,
    )
    cache_gb: float | None = _flag(
        "GiB of each worker's disk for training shards that lie on HDFS: what it has read longest ago makes room; as "
        "much as they take where it is not given. With `--input_mode files` the order of records may follow from it",
        None,
        bond=EXTENT,
    )
    shuffle_buffer: int = _flag(
        "records in a worker's shuffle buffer, with `--input_mode files`; of photographs "
        f"{BUFFER_LIMIT_BYTES >> 20} MiB at most",
        10_000,
        bond=EXTENT,
    )
    start_timeout: int = _flag("seconds that the cluster may take to start before the job gives up", 600, bond=EXTENT)
    stall_timeout: int = _flag("seconds that one step may take before the job gives up", 600, bond=EXTENT)
    stop_timeout: int = _flag(
        "seconds for the running steps and a last checkpoint after Ctrl-C or SIGTERM; a second one does not wait",
        60,
        bond=EXTENT,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_split_name("dataset_split_name", self.dataset_split_name)
        if self.validation_split_name is not None:
            _require_split_name("validation_split_name", self.validation_split_name)
        _require(
            self.max_number_of_steps is None or self.epoch is None,
            "epoch",
            "given together with --max_number_of_steps",
            "Give one of them",
        )
        for name in ("batch_size", "decay_steps", "shuffle_buffer", "start_timeout", "stall_timeout", "stop_timeout"):
            _require(getattr(self, name) >= 1, name, f"{getattr(self, name)} is less than 1")
        _require(
            self.dataset_name in (None, *DATASET_NAMES),
            "dataset_name",
            f"{self.dataset_name!r} is not {' or '.join(DATASET_NAMES)}",
        )
        for name in ("max_number_of_steps", "epoch", "image_size", "save_steps", "save_seconds"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, f"{value} is less than 1")
        for name in ("eval_steps", "num_gpus", "warmup_steps"):
            _require(getattr(self, name) >= 0, name, f"{getattr(self, name)} is less than 0")
        _require(
            self.num_gpus <= 1,
            "num_gpus",
            f"{self.num_gpus} is more than 1: a worker computes on one GPU",
            "Give --num_gpus 1 and more --num_executors",
        )
        _require(
            self.ps_place in ("auto", "executor", "driver"),
            "ps_place",
            f"{self.ps_place!r} is not auto, executor or driver",
        )
        _require(self.cache_gb is None or self.cache_gb > 0, "cache_gb", f"{self.cache_gb} is not more than 0")
        _require(
            self.input_mode in ("auto", PRELOADED, FILES),
            "input_mode",
            f"{self.input_mode!r} is not auto, preloaded or files",
        )
        _require(
            self.normalization in NORMALIZATIONS,
            "normalization",
            f"{self.normalization!r} is not one of {', '.join(NORMALIZATIONS)}",
        )
        _require(
            0 < self.whitening_epsilon < math.inf,
            "whitening_epsilon",
            f"{self.whitening_epsilon} is not a positive, finite number",
        )
        _ = self.ports  # raises for what is no range
        _require(
            self.num_ps_tasks >= 1,
            "num_ps_tasks",
            f"{self.num_ps_tasks} is less than 1",
            "Training needs a parameter server: give --num_ps_tasks 1",
        )
        _require(
            self.num_executors > self.num_ps_tasks,
            "num_executors",
            f"{self.num_executors} nodes with {self.num_ps_tasks} parameter server(s) leave no worker",
            f"Give --num_executors {self.num_ps_tasks + 1} or more",
        )
        _require(
            self.model_name in NETWORKS or bool(_OWN_NETWORK.fullmatch(self.model_name)),
            "model_name",
            f"there is no network {self.model_name!r}",
            f"Known: {', '.join(NETWORKS)}; your own is package.module:function",
        )
        _require(
            self.model_name != "inception_v3" or self.side >= 75,
            "image_size",
            f"{self.side} is less than 75, which inception_v3 needs",
            "Leave it out for 299",
        )
        _require(
            self.model_name != "chinese_rec" or self.side % 8 == 0,
            "image_size",
            f"{self.side} is not a multiple of 8",
            "The network halves the image three times",
        )
        _require(
            0 < self.learning_rate < math.inf, "learning_rate", f"{self.learning_rate} is not a positive, finite number"
        )
        _require(
            0 < self.learning_rate_decay_factor <= 1,
            "learning_rate_decay_factor",
            f"{self.learning_rate_decay_factor} is not in (0, 1]",
        )
        _require(
            self.learning_rate_decay_type in DECAY_TYPES,
            "learning_rate_decay_type",
            f"{self.learning_rate_decay_type!r} is not {', '.join(DECAY_TYPES)}",
        )
        _require(0 <= self.label_smoothing < 1, "label_smoothing", f"{self.label_smoothing} is not in [0, 1)")
        _require(
            not self.checkpoint_exclude_scopes or self.checkpoint_path is not None,
            "checkpoint_exclude_scopes",
            "given without --checkpoint_path",
        )
        _require(
            self.checkpoint_path is None or self.restore in ("auto", "none"),
            "checkpoint_path",
            f"given together with --restore {self.restore}",
            "--restore goes on with a training and its step, --checkpoint_path begins one with other weights",
        )
        _require(0 < self.keep_prob <= 1, "keep_prob", f"{self.keep_prob} is not in (0, 1]")
        _require(
            not (self.overwrite and self.restore != "auto"),
            "overwrite",
            f"given together with --restore {self.restore}",
            "Give one of them",
        )
        _require(
            not (self.overwrite and self.change_settings),
            "change_settings",
            "given together with --overwrite, which begins anew",
            "Give one of them",
        )

    def require_channels(self, num_channels: int) -> None:
        super().require_channels(num_channels)
        num_values = self.side**2 * num_channels
        shape = f"{self.side} × {self.side} × {num_channels}"
        _require(
            self.normalization not in (PCA, ZCA) or num_values <= MAX_WHITENED_VALUES,
            "normalization",
            f"{self.normalization} of images of {shape} = {num_values:,} values needs a matrix of "
            f"{num_values**2 * 4 / (1 << 30):,.2f} GiB in each process and checkpoint; up to {MAX_WHITENED_VALUES:,} "
            "values are whitened",
            "Give a smaller --image_size, or --normalization dataset",
        )

    @property
    def recipe(self) -> dict[str, Any]:
        """The fields of `model.engine.TrainPlan` that the flags alone decide, as JSON values."""
        as_they_are = (
            "seed",
            "batch_size",
            "shuffle_buffer",
            "augmentation",
            "learning_rate",
            "learning_rate_decay_type",
            "learning_rate_decay_factor",
            "decay_steps",
            "warmup_steps",
            "label_smoothing",
            "save_steps",
            "save_seconds",
            "eval_steps",
        )
        return {name: getattr(self, name) for name in as_they_are} | {"trainable_scopes": self.scopes_to_train}

    @property
    def side(self) -> int:
        """S, the side of the images that the network sees, in pixels."""
        return self.image_size or NETWORKS.get(self.model_name, DEFAULT_IMAGE_SIZE)

    @property
    def initial_weights(self) -> dict[str, Any]:
        """What the flags say of `model.finetuning.load_weights`'s arguments; empty for fresh weights."""
        if self.checkpoint_path is None:
            return {}
        return {"path": self.checkpoint_path, "exclude_scopes": _scopes(self.checkpoint_exclude_scopes)}

    @property
    def scopes_to_train(self) -> tuple[str, ...]:
        """`--trainable_scopes`; empty for all."""
        return _scopes(self.trainable_scopes)

    @property
    def num_workers(self) -> int:
        return self.num_executors - self.num_ps_tasks

    @property
    def ports(self) -> tuple[int, int] | None:
        """First and last port of `--port_range`."""
        return _port_range(self.port_range)

    def preloaded_bytes(self, num_records: int, num_channels: int = 1) -> int:
        """What `num_records` take in a worker's memory once they are decoded."""
        return num_records * self.side**2 * num_channels

    def resolved_input_mode(self, num_records: int, num_channels: int = 1) -> str:
        """`preloaded` or `files`, where the worker with the most records has `num_records`."""
        if self.input_mode != "auto":
            return self.input_mode
        return PRELOADED if self.preloaded_bytes(num_records, num_channels) <= PRELOAD_LIMIT_BYTES else FILES

    def buffered_records(self, record_bytes: int) -> int:
        """Records in a worker's shuffle buffer, where they have so many bytes in the mean."""
        if record_bytes <= _GLYPH_LIMIT_BYTES:
            return self.shuffle_buffer
        return max(1, min(self.shuffle_buffer, BUFFER_LIMIT_BYTES // record_bytes))

    @property
    def cache_bytes(self) -> int | None:
        """`--cache_gb` in bytes."""
        return None if self.cache_gb is None else int(self.cache_gb * (1 << 30))

    def total_steps(self, num_records: int) -> int:
        """Global steps of the run on a split of `num_records`: each pass reads each record once."""
        if self.max_number_of_steps is not None:
            return self.max_number_of_steps
        if self.epoch is None:
            return DEFAULT_MAX_NUMBER_OF_STEPS
        return -(-self.epoch * num_records // self.batch_size)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """`evaluate`: exact counts of a checkpoint on a split."""

    dataset_dir: str = _path("folder of the dataset")
    train_dir: str = _path("folder of the run")
    dataset_split_name: str = _flag("the split to evaluate on", "test")
    checkpoint: str = _path(
        "`last`, `best` or the path of a checkpoint", "last", metavar="last|best|PATH", words=("last", "best")
    )
    batch_size: int = _flag("images a step", 128)
    top_k: str = _flag("comma-separated k of the top-k accuracies; 1 is always among them", "1,3,5")
    numbers_only: bool = _flag("write numbers and tables, and draw no pictures", False)

    def __post_init__(self) -> None:
        _require_split_name("dataset_split_name", self.dataset_split_name)
        _require(self.batch_size >= 1, "batch_size", f"{self.batch_size} is less than 1")
        _require(
            all(part.isdigit() and int(part) >= 1 for part in self.top_k.split(",")),
            "top_k",
            f"{self.top_k!r} is not a list of whole numbers",
            "Write it as 1,3,5",
        )

    @property
    def ks(self) -> tuple[int, ...]:
        # Whoever chooses among checkpoints goes by top-1.
        return tuple(sorted({1, *(int(part) for part in self.top_k.split(","))}))


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """`predict`: the characters or other classes on single images."""

    train_dir: str = _path("folder of the run")
    checkpoint: str = _path(
        "`last`, `best` or the path of a checkpoint", "last", metavar="last|best|PATH", words=("last", "best")
    )
    top_k: int = _flag("classes to name for each image", 3)
    images: tuple[str, ...] = _path("PNG, JPEG or GIF files; `-` reads one from stdin", nargs="+", metavar="IMAGE")

    def __post_init__(self) -> None:
        _require(self.top_k >= 1, "top_k", f"{self.top_k} is less than 1")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """`report`: a run's account, as JSON or as one page."""

    train_dir: str = _path("folder of the run")
    html: str | None = _path(
        "write one self-contained HTML file: settings, curves, evaluations and all pictures", None, metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class TensorboardConfig:
    """`tensorboard`: TensorBoard over a run's summaries."""

    train_dir: str = _path("folder of the run")
    host: str = _flag("address to serve on; 0.0.0.0 lets everybody in", "localhost")
    port: int = _flag("port to serve on; 0 for any that is free", 6006)
    reload_interval: int = _flag("seconds between looks for new summaries", 5)

    def __post_init__(self) -> None:
        _require(0 <= self.port <= 65_535, "port", f"{self.port} is not 0 to 65535")
        _require(self.reload_interval >= 1, "reload_interval", f"{self.reload_interval} is less than 1")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """`doctor`: what a job is to need, for a look at whether the cluster has it."""

    dataset_dir: str | None = _path(
        "folder of the dataset, to try the file system in where there is no --train_dir", None
    )
    train_dir: str | None = _path("folder of the run, to try the file system in", None)
    num_executors: int = _flag("executors to find: one for each node of the job", 1)
    num_gpus: int = _flag("GPUs that each of them must have", 0)
    port_range: str | None = _flag(
        "ports that the job may listen on; any free ones without it", None, metavar="LOW-HIGH"
    )
    expected_hours: float = _flag("hours that the job will run: so long delegation tokens must live", 24.0)
    min_free_gb: float = _flag("GiB that each node needs on its local disk, for shards", 1.0)
    start_timeout: int = _flag("seconds to wait for the executors", 600)
    deep: bool = _flag("import TensorFlow on each of them as well, and list the GPUs that it sees", False)

    def __post_init__(self) -> None:
        for name in ("num_executors", "start_timeout"):
            _require(getattr(self, name) >= 1, name, f"{getattr(self, name)} is less than 1")
        for name in ("num_gpus", "expected_hours", "min_free_gb"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, name, f"{value} is not 0 or more")
        _ = self.ports  # raises for what is no range

    @property
    def ports(self) -> tuple[int, int] | None:
        """First and last port of `--port_range`."""
        return _port_range(self.port_range)
