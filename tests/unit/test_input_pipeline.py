from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfos_job.config import FILES, PRELOADED
from tfos_job.data import input_pipeline
from tfos_job.data.augment import Augmentation
from tfos_job.data.damage import data_errors
from tfos_job.data.decoding import GROUP_SIZE, Form, decode, preprocess, to_float
from tfos_job.errors import BadDataError

ALL_ON = Augmentation(random_flip_up_down=True, random_brightness=0.3, random_contrast=0.2)
NUM_RECORDS = 13  # coprime to the batch size: every batch border falls elsewhere in its epoch
BATCH_SIZE = 4

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]

FORM = Form(image_size=8)


def glyphs(labels: Iterable[int]) -> list[tuple[np.ndarray, int]]:
    """A picture of its own, in a size of its own, for each label."""
    generators = ((label, np.random.default_rng(label)) for label in labels)
    return [(rng.integers(0, 256, (5 + label % 4, 4 + label % 3), np.uint8), label) for label, rng in generators]


@pytest.fixture
def shards(write_shard: Callable[..., str]) -> list[str]:
    """Three shards of 5, 6 and 2 records, raw and png; a record's label is its number."""
    borders = [(0, 5, "raw"), (5, 11, "png"), (11, NUM_RECORDS, "raw")]
    return [write_shard(f"{a}.tfrecord", glyphs(range(a, b)), image_format) for a, b, image_format in borders]


in_both_modes = pytest.mark.parametrize("mode", [FILES, PRELOADED])


def stream(
    shards: object, mode: str, seed: int = 1, start_record: object = 0, augmentation: Augmentation = ALL_ON
) -> tf.data.Dataset:
    return input_pipeline.training_dataset(
        shards,
        mode=mode,
        num_records=NUM_RECORDS,
        batch_size=BATCH_SIZE,
        form=FORM,
        seed=seed,
        shuffle_buffer=6,
        start_record=start_record,
        augmentation=augmentation,
    )


def take(dataset: tf.data.Dataset, count: int) -> list[Batch]:
    return list(dataset.take(count).as_numpy_iterator())


def labels_of(batches: list[Batch]) -> list[int]:
    return np.concatenate([labels for _, labels, _ in batches]).tolist()


@in_both_modes
def test_resuming_at_every_position_gives_the_unbroken_stream(shards: list[str], mode: str) -> None:
    num_batches = 2 * NUM_RECORDS // BATCH_SIZE + 2  # over two borders of epochs
    unbroken = take(stream(shards, mode), num_batches)
    # One trace for all positions, as on a worker: the position is a tensor. Every record, not every batch alone.
    resumed = tf.function(lambda start: list(itertools.islice(iter(stream(shards, mode, start_record=start)), 2)))
    images, labels = (np.concatenate([batch[part] for batch in unbroken]) for part in (0, 1))
    for start in range((num_batches - 2) * BATCH_SIZE):
        ours = resumed(tf.constant(start, tf.int64))
        for k, (some_images, some_labels, end_record) in enumerate(ours):
            begin = start + k * BATCH_SIZE
            np.testing.assert_array_equal(some_images.numpy(), images[begin : begin + BATCH_SIZE])
            np.testing.assert_array_equal(some_labels.numpy(), labels[begin : begin + BATCH_SIZE])
            assert int(end_record) == begin + BATCH_SIZE
    assert [int(end) for *_, end in unbroken] == [(k + 1) * BATCH_SIZE for k in range(num_batches)]


@in_both_modes
def test_each_epoch_holds_each_record_once_in_an_order_of_its_own(shards: list[str], mode: str) -> None:
    labels = labels_of(take(stream(shards, mode), NUM_RECORDS))  # B epochs exactly
    epochs = [tuple(labels[i : i + NUM_RECORDS]) for i in range(0, len(labels), NUM_RECORDS)]
    assert all(sorted(epoch) == list(range(NUM_RECORDS)) for epoch in epochs)
    assert len(set(epochs)) == len(epochs)


@in_both_modes
def test_the_order_follows_from_the_seed_alone(shards: list[str], mode: str) -> None:
    before = labels_of(take(stream(shards, mode), 5))
    tf.random.set_seed(99)  # somebody else's business in the same process
    assert labels_of(take(stream(shards, mode), 5)) == before
    assert labels_of(take(stream(shards, mode, seed=2), 5)) != before


@in_both_modes
def test_a_worker_reads_names_and_position_from_its_own_files(shards: list[str], mode: str, tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("\n".join(shards))
    (tmp_path / "start").write_text("8")

    @tf.function
    def first_labels() -> tf.Tensor:
        names = tf.strings.split(tf.io.read_file(str(tmp_path / "shards")), "\n")
        start = tf.strings.to_number(tf.io.read_file(str(tmp_path / "start")), tf.int64)
        return next(iter(stream(names, mode, start_record=start)))[1]

    np.testing.assert_array_equal(first_labels().numpy(), take(stream(shards, mode), 3)[2][1])


@in_both_modes
def test_training_pixels_are_evaluation_pixels(shards: list[str], mode: str) -> None:
    images = {}
    for batch_images, batch_labels in input_pipeline.evaluation_dataset(shards, batch_size=BATCH_SIZE, form=FORM):
        images |= dict(zip(batch_labels.numpy().tolist(), batch_images.numpy(), strict=True))
    assert list(images) == list(range(NUM_RECORDS))  # file order, the remainder kept, each once
    for batch_images, batch_labels, _ in take(stream(shards, mode, augmentation=Augmentation()), 3):
        for image, label in zip(batch_images, batch_labels.tolist(), strict=True):
            np.testing.assert_array_equal(image, images[label])


def test_preprocess_is_tensorflows_bilinear_resize_to_whole_levels() -> None:
    for height, width in ((5, 9), (64, 64), (131, 40)):
        pixels = np.random.default_rng(height).integers(0, 256, (2, height, width, 1), np.uint8)
        stored = preprocess(tf.constant(pixels), Form(image_size=64))
        assert stored.dtype == tf.uint8
        np.testing.assert_array_equal(stored, np.floor(tf.image.resize(pixels, [64, 64]).numpy() + 0.5))
        np.testing.assert_allclose(to_float(stored), stored.numpy() / 255.0, atol=1e-7)


@pytest.mark.parametrize("image_format", ["raw", "png", "mixed"])
@pytest.mark.parametrize("count", [1, 4, GROUP_SIZE])
def test_a_group_is_decoded_like_its_records(write_shard: Callable[..., str], image_format: str, count: int) -> None:
    shards = [
        write_shard(f"{a}-{b}.tfrecord", glyphs(range(a, b)), file_format)
        for a, b, file_format in (
            (0, count // 2, "raw" if image_format == "mixed" else image_format),
            (count // 2, count, "png" if image_format == "mixed" else image_format),
        )
    ]
    serialized = tf.stack(list(tf.data.TFRecordDataset(shards)))
    by_group = tf.function(lambda group: decode(group, FORM, GROUP_SIZE), [tf.TensorSpec([None], tf.string)])
    images, labels = by_group(serialized)
    assert labels.numpy().tolist() == list(range(count))
    for image, (pixels, _) in zip(images.numpy(), glyphs(range(count)), strict=True):
        np.testing.assert_array_equal(image, preprocess(tf.constant(pixels[np.newaxis, :, :, np.newaxis]), FORM)[0])


@in_both_modes
def test_batches_larger_than_a_group_and_than_an_epoch(write_shard: Callable[..., str], mode: str) -> None:
    count, batch_size = GROUP_SIZE + 3, 3 * GROUP_SIZE
    dataset = input_pipeline.training_dataset(
        [write_shard("a.tfrecord", glyphs(range(count)))],
        mode=mode,
        num_records=count,
        batch_size=batch_size,
        form=FORM,
        seed=1,
        shuffle_buffer=10,
        augmentation=Augmentation(),
    )
    labels = labels_of(take(dataset, 2))
    assert len(labels) == 2 * batch_size
    for begin in range(0, len(labels) - count + 1, count):
        assert sorted(labels[begin : begin + count]) == list(range(count))


@in_both_modes
@pytest.mark.parametrize("num_shards", [2, 3])
def test_shards_that_hold_another_number_of_records_are_refused(
    shards: list[str], mode: str, num_shards: int, write_shard: Callable[..., str]
) -> None:
    """One record too few, and one too many."""
    several = [*shards[:2], write_shard("more.tfrecord", glyphs(range(1 if num_shards == 2 else 3)))]
    with pytest.raises(BadDataError, match="expected to contain 13"), data_errors(several):
        take(stream(several, mode), 9)
