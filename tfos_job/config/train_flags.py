"""The flags of `train`; `train.py` has what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.augmentation import AugmentationConfig
from tfos_job.config.defaults import (
    BUFFER_LIMIT_BYTES,
    DATASET_NAMES,
    DECAY_TYPES,
    DEFAULT_IMAGE_SIZE,
    DEFAULT_MAX_NUMBER_OF_STEPS,
    FILES,
    NETWORKS,
    NO_NORMALIZATION,
    NORMALIZATIONS,
    PRELOAD_LIMIT_BYTES,
    PRELOADED,
)
from tfos_job.config.flags import COMMAND, EXTENT, ORIGIN, RECIPE, Subject, flag, path
from tfos_job.config.node_flags import NodeFlags
from tfos_job.config.own_network import NETWORK, NETWORK_METAVAR
from tfos_job.config.recipes import RECIPES
from tfos_job.config.values import SPLIT_NAME


@dataclass(frozen=True, kw_only=True)
class TrainFlags(NodeFlags, AugmentationConfig):
    """The flags of `train`; their names are TF-Slim's and the seed job's."""

    dataset_dir: str = path("folder of the dataset", bond=EXTENT, subject=Subject.DATASET)
    dataset_split_name: str = flag("split to train on", "train", form=SPLIT_NAME, bond=RECIPE, subject=Subject.DATASET)
    validation_split_name: str | None = flag(
        "split to evaluate on every --eval_steps and at the end (default: no evaluation)",
        None,
        form=SPLIT_NAME,
        bond=RECIPE,
        subject=Subject.DATASET,
    )
    dataset_name: str | None = flag(
        "fail unless the dataset was converted with this reader (default: the reader that `convert` has recorded)",
        None,
        choices=DATASET_NAMES,
        bond=EXTENT,
        subject=Subject.DATASET,
    )
    train_dir: str = path("folder of the run: checkpoints, summaries, report", bond=COMMAND, subject=Subject.RUN)
    recipe: str | None = flag(
        "settings that belong together, by their name; flags that are given are stronger:\n"
        + ";\n".join(f"`{name}`: {recipe.about}" for name, recipe in RECIPES.items()),
        None,
        metavar="NAME",
        names=tuple(RECIPES),
        bond=EXTENT,
        subject=Subject.RUN,
    )
    restore: str = path(
        "`auto` resumes the run in --train_dir; `none` fails if it has checkpoints; PATH starts from that checkpoint",
        "auto",
        metavar="auto|none|PATH",
        words=("auto", "none"),
        bond=ORIGIN,
        subject=Subject.RUN,
    )
    overwrite: bool = flag(
        "start over: --train_dir is cleared after all checks of the command have passed",
        False,
        bond=COMMAND,
        subject=Subject.RUN,
    )
    change_settings: bool = flag(
        "resume the run with a changed recipe; the changes are logged and recorded with the attempt",
        False,
        bond=COMMAND,
        subject=Subject.RUN,
    )
    dry_run: bool = flag(
        "print what the command would do, with memory, disk and time, and change nothing: neither Spark nor TensorFlow "
        "is started",
        False,
        bond=COMMAND,
        subject=Subject.RUN,
    )
    seed: int = flag("random seed of initial weights, order and augmentation", 0, bond=RECIPE, subject=Subject.RUN)
    model_name: str = flag(
        f"network: {', '.join(NETWORKS)}, or one of your own as package.module:function",
        "chinese_rec",
        metavar=NETWORK_METAVAR,
        form=NETWORK,
        bond=RECIPE,
        subject=Subject.NETWORK,
    )
    image_size: int | None = flag(
        "side in pixels that images are resized to (default: "
        + ", ".join(f"{size} for {name}" for name, size in NETWORKS.items())
        + f", {DEFAULT_IMAGE_SIZE} for your own)",
        None,
        minimum=1,
        bond=RECIPE,
        subject=Subject.NETWORK,
    )
    checkpoint_path: str | None = path(
        "begin at step 0 with the weights of another training: a checkpoint, a run's folder, or a Keras file "
        "(.weights.h5, .h5); ignored when the run has checkpoints of its own",
        None,
        bond=ORIGIN,
        subject=Subject.NETWORK,
    )
    checkpoint_exclude_scopes: str = flag(
        "comma-separated prefixes of the names of layers that keep fresh weights with --checkpoint_path, such as `fc2`",
        "",
        bond=ORIGIN,
        subject=Subject.NETWORK,
    )
    trainable_scopes: str = flag(
        "comma-separated prefixes of the names of layers to train (default: all layers)",
        "",
        bond=RECIPE,
        subject=Subject.NETWORK,
    )
    epoch: int | None = flag(
        "passes over the split, instead of --max_number_of_steps", None, minimum=1, bond=EXTENT, subject=Subject.LENGTH
    )
    max_number_of_steps: int | None = flag(
        f"global steps, over all workers (default: {DEFAULT_MAX_NUMBER_OF_STEPS} without --epoch)",
        None,
        minimum=1,
        bond=EXTENT,
        subject=Subject.LENGTH,
    )
    batch_size: int = flag(
        "images of a batch; a step takes one batch, or --push_every of them, on one worker",
        128,
        minimum=1,
        bond=RECIPE,
        subject=Subject.LENGTH,
    )
    push_every: int = flag(
        "batches of a step: the mean of their gradients is one update, so that variables and gradients travel once for "
        "all of them",
        1,
        minimum=1,
        bond=RECIPE,
        subject=Subject.LENGTH,
    )
    learning_rate: float = flag(
        "Adam's learning rate at the start; with --warmup_steps, its maximum",
        2e-4,
        above=0,
        bond=RECIPE,
        subject=Subject.OPTIMIZER,
    )
    learning_rate_decay_type: str = flag(
        "`exponential` by --learning_rate_decay_factor, `cosine` to 0 at the last step, or `fixed`",
        "exponential",
        choices=DECAY_TYPES,
        bond=RECIPE,
        subject=Subject.OPTIMIZER,
    )
    learning_rate_decay_factor: float = flag(
        "with `exponential`: factor of the learning rate, applied every --decay_steps",
        0.97,
        above=0,
        maximum=1,
        bond=RECIPE,
        subject=Subject.OPTIMIZER,
    )
    decay_steps: int = flag(
        "with `exponential`: steps between decays (staircase)", 2000, minimum=1, bond=RECIPE, subject=Subject.OPTIMIZER
    )
    warmup_steps: int = flag(
        "steps over which the learning rate first rises from 0",
        0,
        minimum=0,
        off=0,
        bond=RECIPE,
        subject=Subject.OPTIMIZER,
    )
    label_smoothing: float = flag(
        "share of a label that is spread over all classes",
        0.0,
        minimum=0,
        below=1,
        off=0,
        bond=RECIPE,
        subject=Subject.OPTIMIZER,
    )
    keep_prob: float = flag(
        "probability that dropout keeps a unit", 0.8, above=0, maximum=1, off=1, bond=RECIPE, subject=Subject.OPTIMIZER
    )
    normalization: str = flag(
        "`per_image` gives each image mean 0 and standard deviation 1, `per_image_mean` mean 0 alone; `rescale` maps 0 "
        "and 255, `per_image_rescale` each image's darkest and brightest value, to --rescale_min and --rescale_max; "
        "`dataset` gives each channel of the training split mean 0 and standard deviation 1; `pca` and `zca` whiten "
        "whole images",
        NO_NORMALIZATION,
        choices=NORMALIZATIONS,
        metavar="KIND",
        bond=RECIPE,
        subject=Subject.NORMALIZATION,
    )
    rescale_min: float = flag(
        "lowest value, with `rescale` and `per_image_rescale`",
        -1.0,
        minimum=-255,
        maximum=255,
        bond=RECIPE,
        subject=Subject.NORMALIZATION,
    )
    rescale_max: float = flag(
        "highest value, with `rescale` and `per_image_rescale`",
        1.0,
        minimum=-255,
        maximum=255,
        bond=RECIPE,
        subject=Subject.NORMALIZATION,
    )
    whitening_epsilon: float = flag(
        "added to the variances that `pca` and `zca` divide by",
        0.01,
        above=0,
        bond=RECIPE,
        subject=Subject.NORMALIZATION,
    )
    save_steps: int | None = flag(
        "steps between checkpoints; the last step is always saved",
        1000,
        minimum=1,
        bond=EXTENT,
        subject=Subject.CHECKPOINTS,
    )
    save_seconds: int | None = flag(
        "seconds between checkpoints, in addition to --save_steps",
        600,
        minimum=1,
        bond=EXTENT,
        subject=Subject.CHECKPOINTS,
    )
    eval_steps: int = flag(
        "steps between evaluations on the validation split; 0 evaluates at the end only",
        1000,
        minimum=0,
        bond=EXTENT,
        subject=Subject.CHECKPOINTS,
    )
    input_mode: str = flag(
        "`preloaded` decodes a worker's records once and keeps them in its memory, `files` reads them in each epoch; "
        f"`auto` preloads unless a worker needs more than {PRELOAD_LIMIT_BYTES >> 30} GiB for it",
        "auto",
        choices=("auto", PRELOADED, FILES),
        bond=EXTENT,
        subject=Subject.READING,
    )
    cache_gb: float | None = flag(
        "GiB of each worker's disk cache for training shards on HDFS; the least recently read shard is evicted, which "
        "with `--input_mode files` may change the order of records (default: unlimited)",
        None,
        above=0,
        bond=EXTENT,
        subject=Subject.READING,
    )
    shuffle_buffer: int = flag(
        "records in a worker's shuffle buffer, with `--input_mode files`; for photographs "
        f"{BUFFER_LIMIT_BYTES >> 20} MiB at most",
        10_000,
        minimum=1,
        bond=EXTENT,
        subject=Subject.READING,
    )
