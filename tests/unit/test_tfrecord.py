from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfos_job import storage
from tfos_job.conversion.gnt_shard import GroupTask, convert_group
from tfos_job.conversion.shard_plan import Piece, SourceFile
from tfos_job.errors import BadDataError
from tfos_job.formats import gnt, tf_example, tfrecord

DATA = Path(__file__).resolve().parent.parent / "data"
GOLDEN_CHARACTERS = ("啊", "阿", "!", "镕")
FEATURES = {
    "image/encoded": b"\x00\xff" * 40,
    "image/format": b"raw",
    "image/height": 8,
    "image/width": 300,
    "image/class/label": 0,
    "image/class/text": "啊".encode(),
    "source/file": b"001.gnt",
    "source/offset": 1 << 40,
}


def test_tensorflow_reads_what_we_write_and_we_read_what_it_writes(tmp_path: Path) -> None:
    example = tf.train.Example.FromString(tf_example.encode_example(FEATURES))
    found = {
        key: (list(value.bytes_list.value) or list(value.int64_list.value))
        for key, value in example.features.feature.items()
    }
    assert found == {key: [value] for key, value in FEATURES.items()}
    assert tf_example.decode_example(example.SerializeToString(deterministic=True)) == FEATURES
    with tf.io.TFRecordWriter(str(tmp_path / "tf")) as writer:
        writer.write(b"first")
        writer.write(b"")
    stream = io.BytesIO()
    tfrecord.write_record(stream, b"first")
    tfrecord.write_record(stream, b"")
    assert stream.getvalue() == (tmp_path / "tf").read_bytes()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 2**31, 2**63 - 1, -1, -(2**63)])
def test_integers_come_back(value: int) -> None:
    data = tf_example.encode_example({"a": value})
    assert tf_example.decode_example(data) == {"a": value}
    assert tf.train.Example.FromString(data).features.feature["a"].int64_list.value[0] == value


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    stream = io.BytesIO()
    for data in (b"one", b"two"):
        tfrecord.write_record(stream, data)
    whole = stream.getvalue()
    assert list(tfrecord.read_records(io.BytesIO(whole), "a")) == [(0, b"one"), (19, b"two")]
    for position in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[position] ^= 1 << (position % 8)
        with pytest.raises(BadDataError, match=f"a, byte {0 if position < 19 else 19}: "):
            list(tfrecord.read_records(io.BytesIO(bytes(spoilt)), "a"))
        if position % 19:
            with pytest.raises(BadDataError, match="truncated: expected"):
                list(tfrecord.read_records(io.BytesIO(whole[:position]), "a"))


def test_what_is_not_an_example_is_refused() -> None:
    whole = tf_example.encode_example(FEATURES)
    for data in (
        whole[:-1],
        b"\xff" * 20,
        b"\x08\x01",
        tf.train.Example(
            features=tf.train.Features(feature={"a": tf.train.Feature(float_list=tf.train.FloatList(value=[1.0]))})
        ).SerializeToString(),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - which fact it is does not matter here
            tf_example.decode_example(data)


def golden_pixels() -> list[tuple[str, np.ndarray]]:
    """Six glyphs of four classes and one of none; wide, high, single-pixel."""
    shapes = [("啊", (64, 48)), ("阿", (5, 300)), ("!", (40, 9)), ("镕", (1, 1)), ("一", (3, 3)), ("啊", (257, 2))]
    return [
        (character, (np.arange(height * width) * (7 + index) % 256).astype(np.uint8).reshape(height, width))
        for index, (character, (height, width)) in enumerate(shapes)
    ]


def test_golden_bytes(tmp_path: Path) -> None:
    """The formats on disk do not change by accident. `tests/data/golden.*` were written by these very calls."""
    stream = io.BytesIO()
    for character, pixels in golden_pixels():
        gnt.write(stream, gnt.encode_tag(character), pixels)
    assert stream.getvalue() == (DATA / "golden.gnt").read_bytes()
    path = str(DATA / "golden.gnt")
    entry = storage.stat(path)
    result = convert_group(
        GroupTask(
            shard_file="golden.tfrecord",
            pieces=(Piece(SourceFile("golden.gnt", path, entry.size_bytes, entry.mtime_s), 0, entry.size_bytes),),
            building_dir=str(tmp_path),
            characters=GOLDEN_CHARACTERS,
            image_format="raw",
            quarantine=False,
        )
    )
    assert Path(result.written_file).read_bytes() == (DATA / "golden.tfrecord").read_bytes()
    assert [piece.filtered for piece in result.pieces] == [{"一": 1}]
    assert result.class_counts == {0: 2, 1: 1, 2: 1, 3: 1}


def test_tensorflow_reads_the_same_pixels_from_the_golden_file() -> None:
    spec = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/format": tf.io.FixedLenFeature([], tf.string),
        "image/height": tf.io.FixedLenFeature([], tf.int64),
        "image/width": tf.io.FixedLenFeature([], tf.int64),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        "image/class/text": tf.io.FixedLenFeature([], tf.string),
        "source/file": tf.io.FixedLenFeature([], tf.string),
        "source/offset": tf.io.FixedLenFeature([], tf.int64),
    }
    expected = [(character, pixels) for character, pixels in golden_pixels() if character in GOLDEN_CHARACTERS]
    dataset = tf.data.TFRecordDataset(str(DATA / "golden.tfrecord"))
    examples = [tf.io.parse_single_example(data, spec) for data in dataset]
    assert len(examples) == len(expected)
    for example, (character, pixels) in zip(examples, expected, strict=True):
        shape = (int(example["image/height"]), int(example["image/width"]))
        found = np.frombuffer(example["image/encoded"].numpy(), np.uint8).reshape(shape)
        np.testing.assert_array_equal(found, pixels)
        assert example["image/class/text"].numpy().decode() == character
        assert int(example["image/class/label"]) == GOLDEN_CHARACTERS.index(character)
        assert (example["image/format"].numpy(), example["source/file"].numpy()) == (b"raw", b"golden.gnt")
    assert [int(example["source/offset"]) for example in examples][:2] == [0, 10 + 64 * 48]
