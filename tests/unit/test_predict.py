from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.unit import streams
from tfos_job.config import FILES, PRELOADED, PredictConfig
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats.form import Form
from tfos_job.inference.predictor import is_inverted, read_picture
from tfos_job.input.decoding import preprocess, to_float
from tfos_job.layout import RunLayout
from tfos_job.local_jobs.predict import predict
from tfos_job.networks import registry, variables
from tfos_job.run import checkpoints

CHARACTERS = "一丁七万丈"


def cross(height: int = 20, width: int = 24) -> np.ndarray:
    """A 十 of thin grey strokes on white paper."""
    pixels = np.full((height, width), 255, np.uint8)
    pixels[height // 2 - 1 : height // 2 + 1, 2:-2] = 40
    pixels[2:-2, width // 2 - 1 : width // 2 + 1] = 80
    return pixels


def encoded(image: Image.Image, image_format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format)
    return stream.getvalue()


def test_training_evaluation_and_prediction_see_the_same_pixels(write_shard: Callable[..., str]) -> None:
    form, pixels = streams.InFours(image_size=16), cross(37, 23)
    glyph = read_picture(encoded(Image.fromarray(pixels)), "glyph.png")
    predicted = to_float(preprocess(glyph.pixels[np.newaxis], form)).numpy()
    for image_format in ("raw", "png"):
        shards = [write_shard(f"{image_format}.tfrecord", [(pixels, 0)], image_format)]
        np.testing.assert_array_equal(streams.evaluation(batch_size=1, form=form)(shards)[0], predicted)
        for mode in (FILES, PRELOADED):
            read = streams.training(mode=mode, batch_size=1, form=form, shuffle_buffer=1)
            ((trained, _, _),) = read(shards, 1, num_records=1)
            np.testing.assert_array_equal(trained, predicted)


def transparent() -> Image.Image:
    """Black ink on nothing: the colour under full transparency is black too."""
    grey = cross()
    return Image.fromarray(np.dstack([np.zeros((*grey.shape, 3), np.uint8), 255 - grey]))


LOSSLESS: dict[str, Callable[[], bytes]] = {
    "grey PNG": lambda: encoded(Image.fromarray(cross())),
    "RGB PNG": lambda: encoded(Image.fromarray(cross()).convert("RGB")),
    "transparent PNG": lambda: encoded(transparent()),
    "16-bit PNG": lambda: encoded(Image.fromarray(cross().astype(np.uint16) * 257)),
    "GIF": lambda: encoded(Image.fromarray(cross()), "GIF"),
    "transparent GIF": lambda: encoded(transparent_gif(), "GIF"),
}


def transparent_gif() -> Image.Image:
    image = Image.fromarray(cross()).convert("P")
    image.info["transparency"] = 255  # the paper
    return image


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_kind_of_picture_becomes_the_same_grey(kind: str) -> None:
    glyph = read_picture(LOSSLESS[kind](), "x")
    assert not glyph.inverted
    np.testing.assert_array_equal(glyph.pixels[:, :, 0], cross())


def test_a_jpeg_is_nearly_the_same() -> None:
    pixels = read_picture(encoded(Image.fromarray(cross()), "JPEG"), "x").pixels[:, :, 0]
    assert np.abs(pixels.astype(int) - cross()).mean() < 8


def frame() -> np.ndarray:
    """A 口 cropped to its strokes: its border is all ink."""
    pixels = np.zeros((20, 20), np.uint8)
    pixels[2:-2, 2:-2] = 255
    return pixels


def bar() -> np.ndarray:
    """A bold 一 with little margin: most of the picture is ink."""
    pixels = np.full((10, 40), 255, np.uint8)
    pixels[2:-2, 1:-1] = 30
    return pixels


@pytest.mark.parametrize("glyph", [cross, frame, bar, lambda: cross() // 4 + 60], ids=["十", "口", "一", "pale 十"])
def test_white_on_black_is_turned_over_and_said(glyph: Callable[[], np.ndarray]) -> None:
    assert not is_inverted(glyph())
    assert is_inverted(255 - glyph())
    read = read_picture(encoded(Image.fromarray(255 - glyph())), "x")
    assert read.inverted
    np.testing.assert_array_equal(read.pixels[:, :, 0], glyph())


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_empty_picture_is_not_turned_over(value: int) -> None:
    assert not is_inverted(np.full((4, 4), value, np.uint8))


@pytest.mark.parametrize(
    "data",
    [b"", b"GNT?", encoded(Image.fromarray(cross()))[:60], encoded(Image.fromarray(cross()), "BMP")],
    ids=["empty", "text", "cut", "BMP"],
)
def test_what_cannot_be_read_is_named(data: bytes) -> None:
    with pytest.raises(BadDataError, match=r"^glyph\.png: "):
        read_picture(data, "glyph.png")


@pytest.fixture
def config(tmp_path: Path) -> PredictConfig:
    """A run with one checkpoint, two images and a file that is none between them."""
    model = registry.build("chinese_rec", num_classes=len(CHARACTERS), image_size=16, keep_prob=0.8, seed=1)
    checkpoints.publish(
        RunLayout(str(tmp_path)),
        7,
        variables.model_arrays(model),
        {
            "model": {"model_name": "chinese_rec", "num_classes": len(CHARACTERS), "image_size": 16, "keep_prob": 0.8},
            "characters": CHARACTERS,
            "charset_digest": "",
            "dataset_digest": "",
            "input_position": {},
            "metrics": {},
        },
    )
    files = {"a.png": encoded(Image.fromarray(cross())), "b.png": encoded(Image.fromarray(255 - cross()))}
    for name, data in (files | {"c.png": b"not an image"}).items():
        (tmp_path / name).write_bytes(data)
    images = tuple(str(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    return PredictConfig(train_dir=str(tmp_path), images=images, top_k=9)


def test_results_come_image_by_image_until_one_cannot_be_read(config: PredictConfig) -> None:
    results = predict(config)
    first, second = next(results), next(results)
    with pytest.raises(BadDataError, match=r"c\.png"):
        next(results)
    assert (first["image"], first["inverted"], first["step"]) == (config.images[0], False, 7)
    assert second["inverted"]
    assert first["top"] == second["top"]  # the same glyph once it is turned over
    probabilities = [guess["probability"] for guess in first["top"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert sorted(guess["character"] for guess in first["top"]) == sorted(CHARACTERS)
    assert all(CHARACTERS[guess["class_id"]] == guess["character"] for guess in first["top"])


def test_a_network_of_photographs_has_names_and_sees_colours_as_they_are(tmp_path: Path) -> None:
    names = ["cat", "big dog"]
    shape = {"num_classes": 2, "image_size": 16, "num_channels": 3, "keep_prob": 0.8}
    model = registry.build("chinese_rec", **shape, seed=1)
    meta = {
        "model": {"model_name": "chinese_rec", **shape},
        "characters": names,
        "dataset_name": "images",
        "charset_digest": "",
        "dataset_digest": "",
        "input_position": {},
        "metrics": {},
    }
    checkpoints.publish(RunLayout(str(tmp_path)), 7, variables.model_arrays(model), meta)
    pixels = np.random.default_rng(0).integers(0, 80, (50, 70, 3), np.uint8)  # as dark as ink all over
    pixels[:5] = 255
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(pixels)))
    (found,) = predict(PredictConfig(train_dir=str(tmp_path), images=(str(tmp_path / "a.png"),)))
    seen = to_float(preprocess(tf.constant(pixels[np.newaxis]), Form(image_size=16, num_channels=3, antialias=True)))
    expected = tf.nn.softmax(model(seen, training=False))[0].numpy()
    assert not found["inverted"]
    assert {guess["character"]: guess["probability"] for guess in found["top"]} == pytest.approx(
        dict(zip(names, expected.tolist(), strict=True)), abs=1e-6
    )


def test_an_image_comes_from_stdin(config: PredictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(Path(config.images[0]).read_bytes()))
    monkeypatch.setattr("sys.stdin", stdin)
    from_stdin = next(predict(PredictConfig(train_dir=config.train_dir, images=("-",))))
    from_file = next(predict(PredictConfig(train_dir=config.train_dir, images=config.images[:1])))
    assert from_stdin == from_file | {"image": "-"}


def test_an_image_that_is_not_there_is_missing_input(config: PredictConfig) -> None:
    with pytest.raises(MissingInputError, match="nowhere"):
        next(predict(PredictConfig(train_dir=config.train_dir, images=("nowhere.png",))))
