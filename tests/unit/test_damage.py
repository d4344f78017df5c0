"""Damaged records, named with their file and byte wherever they are read."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.unit import streams
from tfos_job.config import FILES, PRELOADED
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats import tf_example, tfrecord
from tfos_job.input.damage import data_errors

SIZES = (5, 6, 2)
READERS = (FILES, PRELOADED, "evaluation")


@pytest.fixture
def shards(write_shard: Callable[..., str]) -> list[str]:
    rng = np.random.default_rng(0)
    return [
        write_shard(f"{number}.tfrecord", [(rng.integers(0, 256, (6, 7), np.uint8), 1)] * size, image_format)
        for number, (size, image_format) in enumerate(zip(SIZES, ("raw", "png", "raw"), strict=True))
    ]


def read(shards: list[str], reader: str) -> None:
    """Everything, as training or evaluation does it."""
    form = streams.InFours(image_size=8)
    if reader == "evaluation":
        streams.evaluation(batch_size=4, form=form)(shards)
    else:
        batches = streams.training(mode=reader, batch_size=4, form=form, shuffle_buffer=6)
        batches(shards, 4, num_records=sum(SIZES))


def offsets(path: Path) -> Iterator[int]:
    with path.open("rb") as stream:
        yield from (offset for offset, _ in tfrecord.read_records(stream, ""))


@pytest.mark.parametrize(
    ("where", "reader"),
    [
        *((where, FILES) for where in ("length", "its checksum", "checksum of the data")),
        *(("data", reader) for reader in READERS),
    ],
)
def test_a_flipped_bit_is_refused_with_file_and_offset(shards: list[str], reader: str, where: str) -> None:
    path = Path(shards[1])
    third, fourth = list(offsets(path))[2:4]
    data = bytearray(path.read_bytes())
    at = {"length": third, "its checksum": third + 9, "data": (third + fourth) // 2, "checksum of the data": fourth - 1}
    data[at[where]] ^= 1 << 2
    path.write_bytes(data)
    with pytest.raises(BadDataError, match=rf"1\.tfrecord, byte {third}: checksum of") as caught, data_errors(shards):
        read(shards, reader)
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_was_cut_is_refused_with_the_last_records_offset(shards: list[str], reader: str) -> None:
    path = Path(shards[2])
    last = list(offsets(path))[-1]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BadDataError, match=rf"2\.tfrecord, byte {last}: truncated"), data_errors(shards):
        read(shards, reader)


Features = dict[str, Any]
# The number of a shard, what is done to the features of its records, and what is said of that.
DAMAGES: dict[str, tuple[int, Callable[[Features], Features], str]] = {
    "not a PNG": (
        1,
        lambda features: features | {"image/encoded": features["image/encoded"].replace(b"IHDR", b"JUNK")},
        "Invalid PNG",
    ),
    "a feature is missing": (
        0,
        lambda features: {key: value for key, value in features.items() if key != "image/class/label"},
        "image/class/label",
    ),
    "more bytes than pixels": (0, lambda features: features | {"image/width": 6}, "Input to reshape"),
    "no pixel": (0, lambda features: features | {"image/encoded": b"", "image/height": 0}, "no pixel|[Ii]nput"),
}


@pytest.mark.parametrize(
    ("damage", "reader"),
    [
        ("not a PNG", FILES),
        ("a feature is missing", PRELOADED),
        # Raw pixels: training has a graph of its own for them.
        *itertools.product(("more bytes than pixels", "no pixel"), READERS),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_its_offset(shards: list[str], damage: str, reader: str) -> None:
    """The checksums are right, what they protect is not."""
    number, damaged, fact = DAMAGES[damage]
    path = Path(shards[number])
    content = [data for _, data in tfrecord.read_records(io.BytesIO(path.read_bytes()), "")]
    content[1:] = [tf_example.encode_example(damaged(tf_example.decode_example(data))) for data in content[1:]]
    with path.open("wb") as stream:
        for data in content:
            tfrecord.write_record(stream, data)
    second = list(offsets(path))[1]
    place = rf"{number}\.tfrecord, byte {second}: the record cannot be decoded: "
    with pytest.raises(BadDataError, match=rf"{place}.*({fact})"), data_errors(shards, with_network=True):
        read(shards, reader)


@pytest.mark.parametrize("reader", READERS)
def test_a_shard_that_is_not_there_is_missing_input(shards: list[str], reader: str) -> None:
    Path(shards[0]).unlink()
    with pytest.raises(MissingInputError, match=r"0\.tfrecord"), data_errors(shards):
        read(shards, reader)


def test_errors_that_are_not_of_the_data_pass_through(shards: list[str]) -> None:
    searched: list[str] = []
    with pytest.raises(tf.errors.InvalidArgumentError), data_errors(shards[:1], on_search=searched.append):
        tf.reshape(tf.zeros(3), [2])
    assert searched == shards[:1]


def test_a_networks_own_error_is_told_without_reading_the_data_again(shards: list[str]) -> None:
    """In one graph with the reader, as a training step is; the shards of a large split take hours to read."""
    searched: list[str] = []
    batches = iter(tf.data.TFRecordDataset(shards).batch(4))

    @tf.function
    def step() -> tf.Tensor:
        return tf.strings.to_number(tf.strings.substr(next(batches), 0, 0) + "word")

    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="could not correctly convert"),
        data_errors(shards, with_network=True, on_search=searched.append),
    ):
        step()
    assert searched == []
