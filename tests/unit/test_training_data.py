"""What follows from flags and manifests for the input of a run."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.dataset import SHARD_BYTES, SIZES, config, data, split
from tfos_job.config import GNT, TrainConfig
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats.charset import Charset
from tfos_job.run.training_data import SplitShards, TrainingData, training_data
from tfos_job.run.worker_inputs import worker_inputs

CHARSET = Charset(("一", "丁"))
GIB = 1 << 30


def remote(settings: TrainConfig) -> TrainingData:
    return training_data(settings, CHARSET, split(is_remote=True), split("validation", is_remote=True))


def test_the_shards_are_divided_and_named_once() -> None:
    found = data()
    assert found.part_sizes == (50, 50)
    assert sorted(path for part in found.parts for path, _ in part) == sorted(f"/data/train/{n}" for n in SIZES)
    assert (found.model.num_classes, found.model.image_size, found.total_steps) == (2, 16, 20)
    assert found.order == {
        "num_workers": 2, "seed": 0, "input_mode": "files", "shuffle_buffer": 10_000, "window": 16,
    }  # fmt: skip
    preloaded = data(config(input_mode="auto"))
    assert preloaded.order == {"num_workers": 2, "seed": 0, "input_mode": "preloaded"}
    assert data(config(max_number_of_steps=None, epoch=2, batch_size=30)).total_steps == 7


def test_a_worker_reads_local_shards_where_they_are() -> None:
    first, second = worker_inputs(config(seed=3), data(), (130, 120))
    assert (first.worker, first.seed, first.start_record, first.num_records) == (0, 3_000_009, 130, 50)
    assert (second.worker, second.seed, second.start_record, second.num_records) == (1, 3_000_010, 120, 50)
    assert {*first.shards, *second.shards} == {f"/data/train/{n}" for n in SIZES}
    assert first.cache_plan is second.cache_plan is None


@pytest.mark.parametrize(
    ("changes", "window", "once"),
    [({}, 16, False), ({"cache_gb": 2.5 * SHARD_BYTES / GIB}, 2, False), ({"input_mode": "preloaded"}, 1, True)],
)
def test_remote_shards_are_brought_to_their_worker_and_the_validation_split_to_all(
    changes: dict[str, Any], window: int, once: bool
) -> None:
    settings = config(**changes)
    found = remote(settings)
    assert found.validation is not None
    assert found.validation.readable_paths == tuple(f"validation/{n}" for n in SIZES)
    plans = [each.cache_plan for each in worker_inputs(settings, found, (130, 0))]
    for plan, part, epoch in zip(plans, found.parts, (2, 0), strict=True):
        assert plan is not None
        assert [copy.source for copy in plan.shards] == [path for path, _ in part]
        assert [copy.source for copy in plan.pinned] == list(found.validation.paths)
        assert (plan.first_epoch, plan.window, plan.once) == (epoch, window, once)


@pytest.mark.parametrize(
    ("settings", "train", "validation", "words"),
    [
        (config(num_executors=6), split(), None, "cannot be divided among 5 workers"),
        (config(dataset_name="images"), split(), None, f"was converted for the reader {GNT}"),
        (config(random_hue=0.1), split(), None, "given for grey images"),
        (config(cache_gb=0.5 * SHARD_BYTES / GIB), split(is_remote=True), None, "less than the largest shard"),
        (config(), split(), split("validation", num_channels=3), r"images of 3 channel\(s\), those of .*train have 1"),
    ],
)
def test_what_does_not_go_with_the_dataset(
    settings: TrainConfig, train: SplitShards, validation: SplitShards | None, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        training_data(settings, CHARSET, train, validation)


def test_a_split_without_records() -> None:
    with pytest.raises(BadDataError, match="the split has no records"):
        training_data(config(), CHARSET, split(shards=()), None)
