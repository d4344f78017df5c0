from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfos_job.data import input_pipeline, records
from tfos_job.data.augment import Augmentation
from tfos_job.errors import BadDataError, MissingInputError

ALL_ON = Augmentation(random_flip_up_down=True, random_brightness=True, random_contrast=True)
NUM_RECORDS = 13  # coprime to the batch size: every batch border falls elsewhere in its epoch
BATCH_SIZE = 4

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def glyphs(labels: Iterable[int]) -> list[tuple[np.ndarray, int]]:
    """A picture of its own, in a size of its own, for each label."""
    generators = ((label, np.random.default_rng(label)) for label in labels)
    return [(rng.integers(0, 256, (5 + label % 4, 4 + label % 3), np.uint8), label) for label, rng in generators]


@pytest.fixture
def shards(write_shard: Callable[..., str]) -> list[str]:
    """Three shards of 5, 6 and 2 records, raw and png; a record's label is its number."""
    borders = [(0, 5, "raw"), (5, 11, "png"), (11, NUM_RECORDS, "raw")]
    return [write_shard(f"{a}.tfrecord", glyphs(range(a, b)), image_format) for a, b, image_format in borders]


def stream(
    shards: object, seed: int = 1, start_record: object = 0, augmentation: Augmentation = ALL_ON
) -> tf.data.Dataset:
    return input_pipeline.training_dataset(
        shards,
        num_records=NUM_RECORDS,
        batch_size=BATCH_SIZE,
        image_size=8,
        seed=seed,
        shuffle_buffer=6,
        start_record=start_record,
        augmentation=augmentation,
    )


def take(dataset: tf.data.Dataset, count: int) -> list[Batch]:
    return list(dataset.take(count).as_numpy_iterator())


def labels_of(batches: list[Batch]) -> list[int]:
    return np.concatenate([labels for _, labels, _ in batches]).tolist()


def test_resuming_at_every_position_gives_the_unbroken_stream(shards: list[str]) -> None:
    num_batches = 3 * NUM_RECORDS // BATCH_SIZE + 2  # over three borders of epochs
    unbroken = take(stream(shards), num_batches)
    # One trace for all positions, as on a worker: the position is a tensor.
    resumed = tf.function(lambda start: list(itertools.islice(iter(stream(shards, start_record=start)), 2)))
    for k in range(num_batches - 1):
        for ours, theirs in zip(resumed(tf.constant(k * BATCH_SIZE, tf.int64)), unbroken[k : k + 2], strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a.numpy(), b)
    assert [int(end) for *_, end in unbroken] == [(k + 1) * BATCH_SIZE for k in range(num_batches)]


def test_each_epoch_holds_each_record_once_in_an_order_of_its_own(shards: list[str]) -> None:
    labels = labels_of(take(stream(shards), NUM_RECORDS))  # B epochs exactly
    epochs = [tuple(labels[i : i + NUM_RECORDS]) for i in range(0, len(labels), NUM_RECORDS)]
    assert all(sorted(epoch) == list(range(NUM_RECORDS)) for epoch in epochs)
    assert len(set(epochs)) == len(epochs)


def test_the_order_follows_from_the_seed_alone(shards: list[str]) -> None:
    before = labels_of(take(stream(shards), 5))
    tf.random.set_seed(99)  # somebody else's business in the same process
    assert labels_of(take(stream(shards), 5)) == before
    assert labels_of(take(stream(shards, seed=2), 5)) != before


def test_a_worker_reads_names_and_position_from_its_own_files(shards: list[str], tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("\n".join(shards))
    (tmp_path / "start").write_text("8")

    @tf.function
    def first_labels() -> tf.Tensor:
        names = tf.strings.split(tf.io.read_file(str(tmp_path / "shards")), "\n")
        start = tf.strings.to_number(tf.io.read_file(str(tmp_path / "start")), tf.int64)
        return next(iter(stream(names, start_record=start)))[1]

    np.testing.assert_array_equal(first_labels().numpy(), take(stream(shards), 3)[2][1])


def test_training_pixels_are_evaluation_pixels(shards: list[str]) -> None:
    images = {}
    for batch_images, batch_labels in input_pipeline.evaluation_dataset(shards, batch_size=BATCH_SIZE, image_size=8):
        images |= dict(zip(batch_labels.numpy().tolist(), batch_images.numpy(), strict=True))
    assert list(images) == list(range(NUM_RECORDS))  # file order, the remainder kept, each once
    for batch_images, batch_labels, _ in take(stream(shards, augmentation=Augmentation()), 3):
        for image, label in zip(batch_images, batch_labels.tolist(), strict=True):
            np.testing.assert_array_equal(image, images[label])


def test_preprocess_is_a_division_and_a_bilinear_resize() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4
    np.testing.assert_allclose(input_pipeline.preprocess(pixels, 8), pixels / 255.0, atol=1e-7)
    halved = pixels.reshape(4, 2, 4, 2, 1).mean(axis=(1, 3)) / 255.0
    np.testing.assert_allclose(input_pipeline.preprocess(pixels, 4), halved, atol=1e-6)


def test_shards_that_hold_another_number_of_records_are_refused(shards: list[str]) -> None:
    with pytest.raises(BadDataError, match="expected to contain 13"), input_pipeline.data_errors(shards[:2]):
        take(stream(shards[:2]), 9)


@pytest.mark.parametrize("damage", ["flipped", "cut", "not a picture"])
def test_a_damaged_record_is_named_with_its_file(shards: list[str], damage: str) -> None:
    shard = Path(shards[1])
    data = bytearray(shard.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    elif damage == "cut":
        shard.write_bytes(data[:-3])
    else:  # PNG as it says, but not within: the checksums of TFRecord are right
        with shard.open("wb") as file:
            for _, record in list(records.read_records(io.BytesIO(data), "")):
                records.write_record(file, record.replace(b"IHDR", b"JUNK"))
    for dataset in (stream(shards), input_pipeline.evaluation_dataset(shards, batch_size=4, image_size=8)):
        with (
            pytest.raises(BadDataError, match=r"5\.tfrecord: record \d cannot be read"),
            input_pipeline.data_errors(shards),
        ):
            take(dataset, 4)


def test_a_shard_that_is_not_there_is_missing_input(shards: list[str]) -> None:
    Path(shards[0]).unlink()
    with pytest.raises(MissingInputError, match=r"0\.tfrecord"), input_pipeline.data_errors(shards):
        take(stream(shards), 4)


def test_errors_that_are_not_of_the_data_pass_through(shards: list[str]) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError), input_pipeline.data_errors(shards):
        tf.reshape(tf.zeros(3), [2])
