from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import tensorflow as tf

from tests.unit import streams
from tests.unit.streams import Batch, InFours
from tfos_job.config import FILES, PRELOADED, AugmentationConfig
from tfos_job.errors import BadDataError
from tfos_job.formats.form import GROUP_SIZE, Form
from tfos_job.input.damage import data_errors
from tfos_job.input.decoding import decode, preprocess, to_float

ALL_ON = AugmentationConfig(random_flip_up_down=True, random_brightness=0.3, random_contrast=0.2)
NUM_RECORDS = 7  # coprime to the batch size: every batch border falls elsewhere in its epoch
BATCH_SIZE = 4
FORM = InFours(image_size=8)


def glyphs(labels: Iterable[int]) -> list[tuple[np.ndarray, int]]:
    """A picture of its own, in a size of its own, for each label."""
    generators = ((label, np.random.default_rng(label)) for label in labels)
    return [(rng.integers(0, 256, (5 + label % 4, 4 + label % 3), np.uint8), label) for label, rng in generators]


@pytest.fixture
def shards(write_shard: Callable[..., str]) -> list[str]:
    """Three shards of 2, 4 and 1 records, raw and png; a record's label is its number."""
    borders = [(0, 2, "raw"), (2, 6, "png"), (6, NUM_RECORDS, "raw")]
    return [write_shard(f"{a}.tfrecord", glyphs(range(a, b)), image_format) for a, b, image_format in borders]


in_both_modes = pytest.mark.parametrize("mode", [FILES, PRELOADED])


def stream(mode: str, augmentation: AugmentationConfig = ALL_ON) -> Callable[..., list[Batch]]:
    """What reads batches of the shards: `read(shards, count, seed=…, start_record=…)`."""
    read = streams.training(mode=mode, batch_size=BATCH_SIZE, form=FORM, shuffle_buffer=4, augmentation=augmentation)
    return functools.partial(read, num_records=NUM_RECORDS)


def labels_of(batches: list[Batch]) -> list[int]:
    return np.concatenate([labels for _, labels, _ in batches]).tolist()


@in_both_modes
def test_resuming_at_every_position_gives_the_unbroken_stream(shards: list[str], mode: str) -> None:
    """At every record of an epoch, not at every batch alone; at its border, and behind it."""
    read = stream(mode)
    unbroken = read(shards, 5)
    images, labels = (np.concatenate([batch[part] for batch in unbroken]) for part in (0, 1))
    for start in range(NUM_RECORDS + 3):
        for k, (some_images, some_labels, end_record) in enumerate(read(shards, 2, start_record=start)):
            begin = start + k * BATCH_SIZE
            np.testing.assert_array_equal(some_images, images[begin : begin + BATCH_SIZE])
            np.testing.assert_array_equal(some_labels, labels[begin : begin + BATCH_SIZE])
            assert end_record == begin + BATCH_SIZE
    assert [int(end) for *_, end in unbroken] == [BATCH_SIZE * (k + 1) for k in range(5)]


@in_both_modes
def test_each_epoch_holds_each_record_once_in_an_order_of_its_own(shards: list[str], mode: str) -> None:
    labels = labels_of(stream(mode)(shards, NUM_RECORDS))  # B epochs exactly
    epochs = [tuple(labels[i : i + NUM_RECORDS]) for i in range(0, len(labels), NUM_RECORDS)]
    assert all(sorted(epoch) == list(range(NUM_RECORDS)) for epoch in epochs)
    assert len(set(epochs)) == len(epochs)


@in_both_modes
def test_the_order_follows_from_the_seed_alone(shards: list[str], mode: str) -> None:
    before = labels_of(stream(mode)(shards, 5))
    assert labels_of(stream(mode)(shards, 5, seed=2)) != before
    tf.random.set_seed(99)  # somebody else's business in the same process
    streams.training.cache_clear()  # graphs have it from where they are made
    assert labels_of(stream(mode)(shards, 5)) == before


def test_training_pixels_are_evaluation_pixels(shards: list[str]) -> None:
    images, labels = streams.evaluation(batch_size=BATCH_SIZE, form=FORM)(shards)
    assert labels.tolist() == list(range(NUM_RECORDS))  # file order, the remainder kept, each once
    for mode in (FILES, PRELOADED):
        for batch_images, batch_labels, _ in stream(mode, AugmentationConfig())(shards, 3):
            np.testing.assert_array_equal(batch_images, images[batch_labels])


def test_preprocess_is_tensorflows_bilinear_resize_to_whole_levels() -> None:
    for height, width in ((5, 9), (64, 64), (131, 40)):
        pixels = np.random.default_rng(height).integers(0, 256, (2, height, width, 1), np.uint8)
        stored = preprocess(tf.constant(pixels), Form(image_size=64))
        assert stored.dtype == tf.uint8
        np.testing.assert_array_equal(stored, np.floor(tf.image.resize(pixels, [64, 64]).numpy() + 0.5))
        np.testing.assert_allclose(to_float(stored), stored.numpy() / 255.0, atol=1e-7)


decode_group = tf.function(lambda group: decode(group, FORM, GROUP_SIZE), [tf.TensorSpec([None], tf.string)])


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
    images, labels = decode_group(tf.stack(list(tf.data.TFRecordDataset(shards))))
    assert labels.numpy().tolist() == list(range(count))
    for image, (pixels, _) in zip(images.numpy(), glyphs(range(count)), strict=True):
        np.testing.assert_array_equal(image, preprocess(tf.constant(pixels[np.newaxis, :, :, np.newaxis]), FORM)[0])


@in_both_modes
def test_batches_larger_than_a_group_and_than_an_epoch(write_shard: Callable[..., str], mode: str) -> None:
    count, batch_size = GROUP_SIZE + 3, 3 * GROUP_SIZE
    read = streams.training(mode=mode, batch_size=batch_size, form=Form(image_size=8), shuffle_buffer=10)
    labels = labels_of(read([write_shard("a.tfrecord", glyphs(range(count)))], 2, num_records=count))
    assert len(labels) == 2 * batch_size
    for begin in range(0, len(labels) - count + 1, count):
        assert sorted(labels[begin : begin + count]) == list(range(count))


@in_both_modes
@pytest.mark.parametrize("num_more", [0, 2], ids=["one too few", "one too many"])
def test_shards_that_hold_another_number_of_records_are_refused(
    shards: list[str], mode: str, num_more: int, write_shard: Callable[..., str]
) -> None:
    several = [*shards[:2], write_shard("more.tfrecord", glyphs(range(num_more)))]
    with pytest.raises(BadDataError, match=f"expected to contain {NUM_RECORDS}"), data_errors(several):
        stream(mode)(several, 5)
