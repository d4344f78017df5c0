"""What `evaluate` evaluates, chosen without TensorFlow: a checkpoint and a split that fit each other."""

from __future__ import annotations

from typing import NamedTuple

from tfos_job.config import EvaluateConfig
from tfos_job.conversion.dataset import refuse_non_folder
from tfos_job.errors import SettingsError
from tfos_job.formats.adopted_shards import load_unchanged
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import DatasetLayout, RunLayout, SplitLayout
from tfos_job.run import checkpoints, own_network
from tfos_job.run.checkpoint_files import Arrays, CheckpointInfo
from tfos_job.run.predictions import JudgedShard


class EvaluationInput(NamedTuple):
    """A checkpoint with the arrays of its network, and the split with its manifest."""

    info: CheckpointInfo
    arrays: Arrays
    split: SplitLayout
    contents: Manifest


class JudgedSplit(NamedTuple):
    """What a network made of each shard of a split, in their order. The arrays of `input` are empty.

    `model_digest` is that of the network (`run/model_digest.py`).
    """

    input: EvaluationInput
    shards: list[JudgedShard]
    model_digest: str


def choose(config: EvaluateConfig) -> EvaluationInput:
    """The checkpoint and the split of the flags.

    Raises:
      MissingInputError: there is no checkpoint or no split.
      SettingsError: the checkpoint was trained on other classes or channels, or its network is Python that the flags do
        not name.
      BadDataError: the checkpoint or the manifest is damaged.
    """
    refuse_non_folder(config.dataset_dir, "--dataset_dir")
    split = DatasetLayout(config.dataset_dir).split(config.dataset_split_name)
    info, arrays = checkpoints.read_network(RunLayout(config.train_dir), config.checkpoint)
    own_network.require_named(info, config.model_name)
    contents = load_unchanged(split)
    _require_compatible(info, contents, split.root)
    return EvaluationInput(info, arrays, split, contents)


def _require_compatible(info: CheckpointInfo, contents: Manifest, place: str) -> None:
    if contents.charset_digest != info.charset_digest:
        raise SettingsError(
            f"charset {contents.charset_digest[:12]} is not the one of {info.path}, {info.charset_digest[:12]}",
            place=place,
            next_step="Evaluate on a dataset converted with the charset that the run was trained on",
        )
    if contents.num_channels != info.form.num_channels:
        raise SettingsError(
            f"images of {contents.num_channels} channel(s), {info.path} was trained on {info.form.num_channels}",
            place=place,
            next_step="Evaluate on a split that was converted with the same --num_channels",
        )
