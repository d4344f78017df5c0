"""Paths of a dataset and of a run, below their roots. Pure: no access to a file system."""

from __future__ import annotations

from dataclasses import dataclass


def join(root: str, *parts: str) -> str:
    """Joins path parts with `/`, for plain paths and URLs alike."""
    return "/".join([root.rstrip("/"), *parts])


def printable(path: str) -> str:
    """Returns a path that can be printed, with escapes for bytes that are not UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


SYNTH_SETTINGS = "synth.json"
"""File with the settings of `synth`, in the folder of its GNT files."""


@dataclass(frozen=True)
class SplitLayout:
    """One split of a dataset.

    ::

        manifest.json                     the live files; published last
        gen-00000/part-00000-of-00004.tfrecord
        _quarantine/<source>.json         byte ranges that could not be read; <digest of the name>.json if necessary
        _building-<token>/                a generation in progress; removed by the next run
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
        """Returns the path of a split's pixel statistics; `key` is `pixel_statistics.Subject.key`."""
        return join(self.root, f"{STATISTICS_PREFIX}{split_name}-{image_size}-{kind}-{key}.npz")

    def split(self, name: str) -> SplitLayout:
        return SplitLayout(join(self.root, name))


CHECKPOINT_PREFIX = "step-"
DAMAGED_PREFIX = "_damaged-"


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
        """Returns the path of an attempt's file; the first attempt is 1."""
        return join(self.attempts_dir, f"{number:03d}.json")

    @property
    def lock(self) -> str:
        return join(self.root, "_lock")

    @property
    def fed_dataset(self) -> str:
        """The dataset of a run that a Python program feeds (`train_dataframe`, `train_arrays`)."""
        return join(self.root, "dataset")

    @property
    def loss_png(self) -> str:
        return join(self.root, "loss.png")

    @property
    def checkpoints_dir(self) -> str:
        return join(self.root, "checkpoints")

    def checkpoint(self, step: int) -> str:
        return join(self.checkpoints_dir, f"{CHECKPOINT_PREFIX}{step:08d}")

    def checkpoint_building(self, attempt: int, token: str) -> str:
        """Returns the temporary name of a checkpoint during its writing by an attempt; the first attempt is 1."""
        return join(self.checkpoints_dir, f"{BUILDING_PREFIX}{attempt}-{token}")

    def checkpoint_damaged(self, name: str, since: str) -> str:
        """Returns the name under which a damaged checkpoint is kept; `name` is its folder's, `since` sorts by time."""
        return join(self.checkpoints_dir, f"{DAMAGED_PREFIX}{name}-{since}")

    @property
    def summaries_dir(self) -> str:
        return join(self.root, "summaries")

    def summaries(self, kind: str) -> str:
        """`kind` is `train` or `validation`."""
        return join(self.summaries_dir, kind)

    @property
    def scratch_dir(self) -> str:
        """Folder of temporary files at the start of a run; used under the run's lock."""
        return join(self.root, "_scratch")

    @property
    def statistics(self) -> str:
        """Path of the training split's statistics, if the dataset is read-only."""
        return join(self.root, f"{STATISTICS_PREFIX[:-1]}.npz")

    @property
    def evaluation_dir(self) -> str:
        return join(self.root, "evaluation")

    def evaluation(self, step: int, split_name: str) -> str:
        return self.evaluation_pictures(step, split_name) + ".json"

    def evaluation_predictions(self, step: int, split_name: str) -> str:
        return self.evaluation_pictures(step, split_name) + ".npz"

    def evaluation_pictures(self, step: int, split_name: str) -> str:
        """Returns the folder of an evaluation's tables and pictures."""
        return join(self.evaluation_dir, f"{CHECKPOINT_PREFIX}{step:08d}-{split_name}")

    def evaluation_building(self, step: int, split_name: str) -> str:
        """Returns the temporary name of that folder during its writing."""
        return join(self.evaluation_dir, f"{BUILDING_PREFIX}{CHECKPOINT_PREFIX}{step:08d}-{split_name}")


EXPORT_DOCUMENT = "export.json"
"""Of a version of an exported network, in its folder."""


@dataclass(frozen=True)
class ExportLayout:
    """Exported networks (`--export_dir`), in TensorFlow Serving's layout: it serves the highest version.

    ::

        12/export.json            what it is, and the digests of its files
        12/saved_model.pb, 12/variables/, 12/assets.extra/
        _building-<token>/        a version that is being written; removed by the next export
    """

    root: str

    @property
    def lock(self) -> str:
        return join(self.root, "_lock")

    def version(self, number: int) -> str:
        return join(self.root, str(number))

    def building(self, token: str) -> str:
        return join(self.root, BUILDING_PREFIX + token)


PROMOTION_DOCUMENT = "promotion.json"  # of a version that was promoted, in its folder


@dataclass(frozen=True)
class RegistryLayout(ExportLayout):
    """Promoted networks (`--registry_dir`): versions as those of an export, and what is known of them.

    ::

        12/promotion.json                who promoted it and why; the same as history/000012.json
        current                          the same of the highest version
        history/000012.json              of each version that there was; never changed
        history/000012.npz               its predictions for the frozen set
        history/kept-<time>-<token>.json a candidate that was not promoted
    """

    @property
    def current(self) -> str:
        return join(self.root, "current")

    @property
    def history_dir(self) -> str:
        return join(self.root, "history")

    def entry(self, number: int) -> str:
        return join(self.history_dir, f"{number:06d}.json")

    def predictions(self, number: int) -> str:
        return join(self.history_dir, f"{number:06d}.npz")

    def kept(self, since: str, token: str) -> str:
        return join(self.history_dir, f"kept-{since}-{token}.json")


def export_version(name: str) -> int | None:
    """Returns the version in the name of an export's folder; None for any other name."""
    return int(name) if name.isascii() and name.isdigit() else None


@dataclass(frozen=True)
class InferenceLayout:
    """Results of `infer` (`--output_dir`).

    ::

        part-00000.parquet         the rows of a partition, published whole; .jsonl by --output_format
        _parts/part-00000.json     its size, digest and counts: the partition is done
        _plan.json                 what the results follow from
        _SUCCESS                   the counts of all; published last
        _lock                      of the command that writes
    """

    root: str

    @property
    def plan(self) -> str:
        return join(self.root, "_plan.json")

    @property
    def success(self) -> str:
        return join(self.root, "_SUCCESS")

    @property
    def lock(self) -> str:
        return join(self.root, "_lock")

    @property
    def parts_dir(self) -> str:
        return join(self.root, "_parts")

    def part(self, number: int, output_format: str) -> str:
        return join(self.root, f"part-{number:05d}.{output_format}")

    def part_record(self, number: int) -> str:
        """Returns the path of the document about a part."""
        return join(self.parts_dir, f"part-{number:05d}.json")


def checkpoint_step(name: str) -> int | None:
    """Returns the step in a checkpoint folder's name; None for any other name."""
    digits = name.removeprefix(CHECKPOINT_PREFIX)
    return int(digits) if name.startswith(CHECKPOINT_PREFIX) and digits.isdigit() else None


def building_attempt(name: str) -> int | None:
    """Returns the attempt in the temporary name of a checkpoint's folder; None for any other name."""
    number, dash, _ = name.removeprefix(BUILDING_PREFIX).partition("-")
    return int(number) if name.startswith(BUILDING_PREFIX) and dash and number.isdigit() else None


def damaged_since(name: str) -> str | None:
    """Returns the time in the name of a damaged checkpoint; None for any other name."""
    return name.rpartition("-")[2] if name.startswith(DAMAGED_PREFIX) else None
