"""Every path of a dataset and of a run, under its root. Pure strings: nothing here touches a file system."""

from __future__ import annotations

from dataclasses import dataclass


def join(root: str, *parts: str) -> str:
    """Joins path parts with `/`, for plain paths and URLs alike."""
    return "/".join([root.rstrip("/"), *parts])


def printable(path: str) -> str:
    """A path as one can write it: with escapes for bytes that are not UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


SYNTH_SETTINGS = "synth.json"
"""What `synth` writes beside its GNT files: of what they were made."""


@dataclass(frozen=True)
class SplitLayout:
    """One split of a dataset.

    ::

        manifest.json                     what is live; published last
        gen-00000/part-00000-of-00004.tfrecord
        _quarantine/<source>.json         byte ranges that could not be read; <digest of the name>.json where need be
        _building-<token>/                a generation on its way; swept by the next run
    """

    root: str

    @property
    def manifest(self) -> str:
        return join(self.root, "manifest.json")

    @property
    def quarantine_dir(self) -> str:
        return join(self.root, QUARANTINE)

    def generation(self, number: int) -> str:
        return join(self.root, generation_name(number))

    def building(self, token: str) -> str:
        return join(self.root, BUILDING_PREFIX + token)


QUARANTINE = "_quarantine"
BUILDING_PREFIX = "_building-"
GENERATION_PREFIX = "gen-"


def generation_name(number: int) -> str:
    return f"{GENERATION_PREFIX}{number:05d}"


def shard_name(index: int, count: int) -> str:
    return f"part-{index:05d}-of-{count:05d}.tfrecord"


STATISTICS_PREFIX = "statistics-"


@dataclass(frozen=True)
class DatasetLayout:
    """A dataset (`--dataset_dir`): one charset, one lock, any number of splits."""

    root: str

    @property
    def charset(self) -> str:
        return join(self.root, "charset.json")

    @property
    def lock(self) -> str:
        return join(self.root, "_lock")

    def statistics(self, split_name: str, image_size: int, kind: str, key: str) -> str:
        """Of the pixels of a split, as `data.statistics` makes them; `key` is `Subject.key`."""
        return join(self.root, f"{STATISTICS_PREFIX}{split_name}-{image_size}-{kind}-{key}.npz")

    def split(self, name: str) -> SplitLayout:
        return SplitLayout(join(self.root, name))


CHECKPOINT_PREFIX = "step-"


@dataclass(frozen=True)
class RunLayout:
    """A run (`--train_dir`)."""

    root: str

    @property
    def config(self) -> str:
        return join(self.root, "config.json")

    @property
    def report(self) -> str:
        return join(self.root, "report.json")

    @property
    def attempts_dir(self) -> str:
        return join(self.root, "attempts")

    def attempt(self, number: int) -> str:
        """The settings of an attempt; the first one is 1."""
        return join(self.attempts_dir, f"{number:03d}.json")

    @property
    def lock(self) -> str:
        return join(self.root, "_lock")

    @property
    def loss_png(self) -> str:
        return join(self.root, "loss.png")

    @property
    def checkpoints_dir(self) -> str:
        return join(self.root, "checkpoints")

    def checkpoint(self, step: int) -> str:
        return join(self.checkpoints_dir, f"{CHECKPOINT_PREFIX}{step:08d}")

    @property
    def summaries_dir(self) -> str:
        return join(self.root, "summaries")

    def summaries(self, kind: str) -> str:
        """`kind` is `train` or `validation`."""
        return join(self.summaries_dir, kind)

    @property
    def scratch_dir(self) -> str:
        """What is on its way while a run begins; under the run's lock."""
        return join(self.root, "_scratch")

    @property
    def statistics(self) -> str:
        """Of the training split's pixels, where they cannot be kept in the dataset."""
        return join(self.root, f"{STATISTICS_PREFIX[:-1]}.npz")

    @property
    def evaluation_dir(self) -> str:
        return join(self.root, "evaluation")

    def evaluation(self, step: int, split_name: str) -> str:
        return self.evaluation_pictures(step, split_name) + ".json"

    def evaluation_pictures(self, step: int, split_name: str) -> str:
        """The folder of an evaluation's tables and pictures."""
        return join(self.evaluation_dir, f"{CHECKPOINT_PREFIX}{step:08d}-{split_name}")

    def evaluation_building(self, step: int, split_name: str) -> str:
        """Where that folder is written before it bears its name."""
        return join(self.evaluation_dir, f"{BUILDING_PREFIX}{CHECKPOINT_PREFIX}{step:08d}-{split_name}")


def checkpoint_step(name: str) -> int | None:
    """The step in a checkpoint folder's name; None for any other name."""
    digits = name.removeprefix(CHECKPOINT_PREFIX)
    return int(digits) if name.startswith(CHECKPOINT_PREFIX) and digits.isdigit() else None
