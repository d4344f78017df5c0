"""One picture, one array of pixels: whatever stores it, and whoever reads it."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.unit import slim_records, streams
from tfos_job.config import DATASET_NAMES, FILES, PRELOADED
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import image_files, readers, tf_example, tfrecord
from tfos_job.formats.form import GROUP_SIZE, Form
from tfos_job.inference.pictures import read_picture
from tfos_job.input.damage import data_errors
from tfos_job.input.decoding import decode, decode_file, preprocess, to_float

SIZE = 16


def photograph(seed: int, height: int, width: int) -> Image.Image:
    few = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    return Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)


def file(image: Image.Image, image_format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format)
    return stream.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    stream = io.BytesIO()
    photograph(4, 31, 40).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


FILES_OF_A_KIND = {
    "png": file(photograph(1, 37, 23), "PNG"),
    "grey png": file(photograph(1, 37, 23).convert("L"), "PNG"),
    "jpeg": file(photograph(2, 70, 90), "JPEG"),
    "grey jpeg": file(photograph(2, 70, 90).convert("L"), "JPEG"),
    "gif": file(photograph(3, 9, 11).quantize(50), "GIF"),
    "turned jpeg": turned(),
}


def write(path: Path, *stored: tuple[bytes, str, int, int]) -> str:
    """A shard; labels count from 0."""
    with path.open("wb") as stream:
        for label, (data, image_format, height, width) in enumerate(stored):
            features: dict[str, bytes | int] = {
                "image/class/label": label,
                "image/encoded": data,
                "image/format": image_format.encode(),
                "image/height": height,
                "image/width": width,
            }
            tfrecord.write_record(stream, tf_example.encode_example(features))
    return str(path)


@pytest.mark.parametrize(("num_channels", "antialias"), [(1, False), (3, False), (1, True), (3, True)])
def test_training_evaluation_and_prediction_see_the_same_pixels(
    tmp_path: Path, num_channels: int, antialias: bool
) -> None:
    form = streams.InFours(image_size=SIZE, num_channels=num_channels, antialias=antialias)
    predicted = []
    for kind, data in FILES_OF_A_KIND.items():
        pixels = read_picture(data, "x", num_channels=num_channels)
        with image_files.opened(data) as image:  # Pillow's own
            expected = np.asarray(image_files.flat(image).convert("L" if num_channels == 1 else "RGB"))
        np.testing.assert_array_equal(pixels, expected.reshape(pixels.shape), kind)
        predicted.append(to_float(preprocess(tf.constant(pixels[np.newaxis]), form)).numpy()[0])
    shards = [write(tmp_path / "a.tfrecord", *map(image_files.read, FILES_OF_A_KIND.values()))]
    images, labels = streams.evaluation(batch_size=4, form=form)(shards)
    assert labels.tolist() == list(range(len(predicted)))
    np.testing.assert_array_equal(images, predicted)
    for mode in (FILES, PRELOADED):
        read = streams.training(mode=mode, batch_size=len(predicted), form=form, shuffle_buffer=1)
        ((images, labels, _),) = read(shards, 1, num_records=len(predicted))
        assert sorted(labels) == list(range(len(predicted)))
        np.testing.assert_array_equal(images, np.array(predicted)[labels])


@pytest.mark.parametrize("num_channels", [1, 3])
def test_formats_may_be_mixed_and_grey_becomes_three_equal_channels(tmp_path: Path, num_channels: int) -> None:
    grey = np.asarray(photograph(5, 20, 30).convert("L"))
    stored = [(grey.tobytes(), "raw", 20, 30), (file(Image.fromarray(grey), "PNG"), "png", 20, 30)]
    serialized = list(tf.data.TFRecordDataset(write(tmp_path / "a", *stored)))
    form = Form(image_size=SIZE, num_channels=num_channels)
    expected = preprocess(tf.constant(grey[np.newaxis, :, :, np.newaxis]), form).numpy()
    for which, group_size in itertools.product(([0, 0], [0, 1], [1, 1]), (None, GROUP_SIZE)):
        images, labels = decode(tf.stack([serialized[i] for i in which]), form, group_size)
        assert labels.numpy().tolist() == which
        np.testing.assert_array_equal(images, np.broadcast_to(expected, (2, SIZE, SIZE, num_channels)))


def test_grey_is_pillows_for_any_colour() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (256, 1024, 3), np.uint8)
    ours = decode_file(tf.constant(file(Image.fromarray(colours), "PNG")), "png", 1).numpy()[:, :, 0]
    np.testing.assert_array_equal(ours, np.asarray(Image.fromarray(colours).convert("L")))


def test_what_is_made_smaller_is_averaged_where_that_is_asked() -> None:
    sampled, averaging = (Form(image_size=8, antialias=antialias) for antialias in (False, True))
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[np.newaxis, :, :, np.newaxis]
    averaged = preprocess(tf.constant(checks), averaging).numpy()
    assert np.abs(averaged.astype(int) - 127).max() <= 4
    white = tf.fill([1, 50, 70, 3], tf.constant(255, tf.uint8))
    assert (preprocess(white, averaging).numpy() == 255).all()
    small = tf.constant(np.asarray(photograph(6, 7, 5))[np.newaxis])
    difference = preprocess(small, averaging).numpy().astype(int) - preprocess(small, sampled).numpy()
    assert np.abs(difference).max() <= 1  # a larger one is the same bilinear resize


@pytest.mark.parametrize("num_channels", [1, 3])
def test_adopted_records_give_the_pixels_of_converted_ones_whatever_they_say_of_the_format(num_channels: int) -> None:
    form = Form(image_size=SIZE, num_channels=num_channels, antialias=True)
    bare = {"image/format": None, "image/height": None, "image/width": None}
    for kind in ("png", "grey png", "jpeg", "grey jpeg", "gif"):
        data = FILES_OF_A_KIND[kind]
        features = {"image/class/label": 1, "image/encoded": data, "image/height": 1, "image/width": 1}
        plain, _ = decode(
            tf.constant([tf_example.encode_example({**features, "image/format": kind.split()[-1].encode()})]), form
        )
        written = ({"image/format": b"JPEG"}, {"image/format": b"jpg"}, {"image/format": b""}, bare)
        records = [slim_records.of_imagenet(2, 7, "x", **{"image/encoded": data}, **changes) for changes in written]
        images, labels = decode(tf.constant(records), form)
        assert labels.numpy().tolist() == [7] * len(records)
        np.testing.assert_array_equal(images, np.broadcast_to(plain, images.shape), kind)


@pytest.mark.parametrize(
    ("image_format", "data"), [("jpeg", b"no JPEG"), ("webp", b"RIFF"), ("png", b""), ("gif", b"GIF89a")]
)
def test_what_cannot_be_decoded_is_named(tmp_path: Path, image_format: str, data: bytes) -> None:
    shards = [write(tmp_path / "a.tfrecord", (data, image_format, 1, 1))]
    with pytest.raises(BadDataError, match=r"a\.tfrecord, byte 0"), data_errors(shards):
        streams.evaluation(batch_size=4, form=streams.InFours(image_size=SIZE))(shards)


def test_a_reader_that_is_not_the_datasets_is_refused() -> None:
    assert tuple(readers.READERS) == DATASET_NAMES
    assert readers.resolve(None, "images", "d/train") == readers.resolve("images", "images", "d/train")
    with pytest.raises(SettingsError, match=r"--dataset_name gnt: d/train was converted for the reader images"):
        readers.resolve("gnt", "images", "d/train")
    with pytest.raises(SettingsError, match="made for the reader 'tapes'"):
        readers.resolve(None, "tapes", "d/train")
