from __future__ import annotations

import gc
import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.unit import streams
from tests.unit.small_checkpoints import model_arrays
from tfos_job.config import FILES, PRELOADED, PredictConfig
from tfos_job.errors import BadDataError, JobError, MissingInputError, SettingsError
from tfos_job.formats import image_files, png
from tfos_job.formats.form import Form
from tfos_job.inference.answer import Answer, Guess, NoAnswer
from tfos_job.inference.evaluation import evaluate_shards
from tfos_job.inference.ink_character import SEVERAL
from tfos_job.inference.pictures import Request, read, read_picture
from tfos_job.inference.predictor import Predictor, Seen
from tfos_job.input.decoding import preprocess, to_float
from tfos_job.layout import RunLayout
from tfos_job.local_jobs.predict import predict
from tfos_job.networks import registry, variables
from tfos_job.run import checkpoints
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.run.model_digest import model_digest

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
    predicted = to_float(preprocess(glyph[np.newaxis], form)).numpy()
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
    np.testing.assert_array_equal(read_picture(LOSSLESS[kind](), "x")[:, :, 0], cross())


def test_a_jpeg_is_nearly_the_same() -> None:
    pixels = read_picture(encoded(Image.fromarray(cross()), "JPEG"), "x")[:, :, 0]
    assert np.abs(pixels.astype(int) - cross()).mean() < 8


@pytest.mark.parametrize(
    "data",
    [b"", b"GNT?", encoded(Image.fromarray(cross()))[:60], encoded(Image.fromarray(cross()), "BMP")],
    ids=["empty", "text", "cut", "BMP"],
)
def test_what_cannot_be_read_is_named(data: bytes) -> None:
    with pytest.raises(BadDataError, match=r"^glyph\.png: "):
        read_picture(data, "glyph.png")


def publish(root: Path, **changes: Any) -> keras.Model:
    """A run of one checkpoint, of step 7."""
    model = {"model_name": "chinese_rec", "num_classes": len(CHARACTERS), "image_size": 16, "keep_prob": 0.8}
    meta = {"model": model, "characters": CHARACTERS, "dataset_digest": "", "input_position": {}, "metrics": {}}
    meta |= {"charset_digest": "", **changes}
    made = registry.build(**meta["model"], seed=1)
    checkpoints.publish(RunLayout(str(root)), 7, model_arrays(made), meta)
    return made


@pytest.fixture(scope="module")
def train_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on glyphs."""
    root = tmp_path_factory.mktemp("run")
    publish(root)
    return root


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The paths of a picture, of the same in white on black, of a file that is none, and of nothing."""
    contents = {"a": encoded(Image.fromarray(cross())), "b": encoded(Image.fromarray(255 - cross())), "c": b"no image"}
    for name, data in contents.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    return {name: str(tmp_path / f"{name}.png") for name in (*contents, "nowhere")}


def ask(train_dir: Path, *images: str, **flags: Any) -> tuple[list[dict[str, Any]], JobError | None]:
    """The lines of `predict`, and the error after them."""
    lines = []
    try:
        for line in predict(PredictConfig(train_dir=str(train_dir), images=images, **flags)):
            lines.append(line)
    except JobError as error:
        return lines, error
    return lines, None


def test_a_line_has_the_most_probable_classes(train_dir: Path, files: dict[str, str]) -> None:
    (line,), error = ask(train_dir, files["a"], top_k=9)
    assert error is None
    assert (line["image"], line["inverted"], line["step"]) == (files["a"], False, 7)
    probabilities = [guess["probability"] for guess in line["top"]]
    assert probabilities == sorted(probabilities, reverse=True) == [round(p, 6) for p in probabilities]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert sorted(guess["character"] for guess in line["top"]) == sorted(CHARACTERS)
    assert all(CHARACTERS[guess["class_id"]] == guess["character"] for guess in line["top"])


def test_white_on_black_is_turned_over_unless_it_is_taken_as_it_is(train_dir: Path, files: dict[str, str]) -> None:
    (black, white), _ = ask(train_dir, files["a"], files["b"])
    assert white == {**black, "image": files["b"], "inverted": True}
    (black_as_it_is, white_as_it_is), _ = ask(train_dir, files["a"], files["b"], raw_image=True)
    assert black_as_it_is["top"] != white_as_it_is["top"] != white["top"]
    for line in (black_as_it_is, white_as_it_is):
        assert sorted(line) == ["image", "inverted", "step", "top"]
        assert not line["inverted"]


def test_the_ink_is_found_wherever_it_is(train_dir: Path) -> None:
    """On a page of any kind a character is what it is as a crop; without any it is nothing, however sure a network."""
    predictor = Predictor(train_dir)
    crop = cross(60, 60)[2:-2, 2:-2]
    page = np.full((500, 400), 255, np.uint8)
    page[300:356, 40:96] = crop
    tight, on_page = predictor.predict([crop, page], top_k=5)
    assert tight["box"] == [0, 0, 56, 56]
    assert on_page["box"] == pytest.approx([40, 300, 96, 356], abs=1)
    assert [guess["probability"] for guess in on_page["top"]] == pytest.approx(
        [guess["probability"] for guess in tight["top"]], abs=0.01
    )
    blank, again = predictor.predict([np.full((80, 60), 200, np.uint8), crop])
    assert blank == {"doubtful": "blank", "image": "pictures[0]", "inverted": False, "step": 7, "top": []}
    assert again["top"] == tight["top"][:3]
    assert "doubtful" not in again
    both = page.copy()
    both[20:76, 300:356] = crop
    (several,) = predictor.predict([both])
    assert several["doubtful"] == SEVERAL
    assert several["top"] == []
    assert len(several["guesses"]) == 3  # of one of them
    raw, _ = Predictor(train_dir, raw_image=True).predict([page, crop])
    assert len(raw["top"]) == 3
    assert raw["top"] != on_page["top"][:3]


def test_one_bad_file_does_not_end_the_list(train_dir: Path, files: dict[str, str]) -> None:
    (bad, good, missing), error = ask(train_dir, files["c"], files["a"], files["nowhere"])
    assert bad == {"image": files["c"], "error": "not a PNG, JPEG or GIF. Give a PNG, JPEG or GIF"}
    assert good["top"]
    assert missing == {"image": files["nowhere"], "error": "cannot look at it: not there. Check the path"}
    assert isinstance(error, BadDataError)
    assert error.fact == f"2 of 3 pictures could not be read: {files['c']}: not a PNG, JPEG or GIF"


def test_what_is_not_there_is_missing_input_and_known_before_tensorflow(
    train_dir: Path, files: dict[str, str], tmp_path: Path
) -> None:
    lines, error = ask(train_dir, files["a"], files["nowhere"])
    assert isinstance(error, MissingInputError)
    assert [len(lines), list(lines[1])] == [2, ["image", "error"]]
    (tmp_path / "empty").mkdir()
    config = PredictConfig(train_dir=str(train_dir), images=(files["nowhere"], str(tmp_path / "empty")))
    answers = predict(config, load_tensorflow=lambda: pytest.fail("TensorFlow is loaded"))
    assert [list(next(answers)), list(next(answers))] == [["image", "error"]] * 2
    with pytest.raises(MissingInputError, match="2 of 2 pictures"):
        next(answers)
    without_run = PredictConfig(train_dir=str(tmp_path), images=(files["a"],))
    with pytest.raises(MissingInputError, match="no checkpoint that verifies"):
        next(predict(without_run, load_tensorflow=lambda: pytest.fail("TensorFlow is loaded")))


def test_a_folder_is_all_its_pictures_sorted_in_batches(
    train_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"page {number % 3}/{number:02}.{suffix}" for number in range(4) for suffix in ("png", "JPG", "gif")]
    kinds = {"png": "PNG", "JPG": "JPEG", "gif": "GIF"}
    for number, name in enumerate([*names, ".hidden.png", ".cache/a.png", "@eaDir/a.png"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(cross(12 + number)), kinds[name.rpartition(".")[2]]))
    (tmp_path / "notes.txt").touch()
    os.mkfifo(tmp_path / "z.png")
    (tmp_path / "zz.png").symlink_to("nowhere")
    paths = [str(tmp_path / name) for name in sorted(names)]
    *alone, _, _ = ask(train_dir, f"{tmp_path}/")[0]
    for size in (1, 5, 12):
        monkeypatch.setattr("tfos_job.inference.predictor.PREDICTED_BATCH", size)
        lines, error = ask(train_dir, str(tmp_path))
        assert [line["image"] for line in lines] == [*paths, f"{tmp_path}/z.png", f"{tmp_path}/zz.png"]
        assert isinstance(error, BadDataError)
        assert lines[-2]["error"] == "a FIFO, not a file. Move it away"
        for line, expected in zip(lines[:-2], alone, strict=True):
            assert [guess["character"] for guess in line["top"]] == [guess["character"] for guess in expected["top"]]
            for guess, other in zip(line["top"], expected["top"], strict=True):
                assert guess["probability"] == pytest.approx(other["probability"], abs=2e-6)
    assert len({line["top"][0]["probability"] for line in alone}) > 3  # they are not all the same picture


@pytest.mark.parametrize("image_format", ["raw", "png"])
def test_evaluation_and_every_way_of_asking_give_the_same_answers(
    image_format: str, train_dir: Path, tmp_path: Path, write_shard: Callable[..., str]
) -> None:
    """Of crops, as they are in a dataset: the class and its probability, record by record."""
    draw = np.random.default_rng(1)
    glyphs = [draw.integers(0, 256, (int(height), 20), np.uint8) for height in draw.integers(9, 40, 7)]
    shard = write_shard("a.tfrecord", [(pixels, 0) for pixels in glyphs], image_format)
    info, arrays = checkpoints.read(RunLayout(str(train_dir)), "last")
    model, form = variables.restore_model(info, arrays), variables.form_of(info)
    _, evaluated = evaluate_shards(model, [shard], num_records=len(glyphs), batch_size=3, form=form, ks=(1,))
    paths = [str(tmp_path / f"{number}.png") for number in range(len(glyphs))]
    for path, pixels in zip(paths, glyphs, strict=True):
        Image.fromarray(pixels).save(path)
    lines, error = ask(train_dir, *paths, raw_image=True)
    assert error is None
    for answers in (lines, Predictor(train_dir, raw_image=True).predict(glyphs)):
        assert [answer["top"][0]["class_id"] for answer in answers] == evaluated.predicted.tolist()
        probabilities = [answer["top"][0]["probability"] for answer in answers]
        assert probabilities == pytest.approx(evaluated.probabilities.tolist(), abs=1e-6)


# What TensorFlow or this package would load if it were there for the asking, and no prediction needs.
UNUSED = {"fsspec", "hdfs_native", "matplotlib", "pyspark", "py4j", "tensorboard", "tensorflowonspark", "tfos_job.jobs"}


def test_a_command_loads_what_it_needs_and_says_what_is_wrong(train_dir: Path, files: dict[str, str]) -> None:
    code = (
        "import json, sys, tfos_job.cli as cli\n"
        "code = cli.main(sys.argv[1:])\n"
        "print(json.dumps(sorted(sys.modules)))\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "predict", "--train_dir", train_dir, files["c"], files["a"]]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 65
    bad, good, modules = map(json.loads, done.stdout.splitlines())
    assert list(bad) == ["error", "image"]
    assert (good["image"], len(good["top"])) == (files["a"], 3)
    assert "tensorflow" in modules
    assert not UNUSED & set(modules)
    # TensorFlow's own greetings are not among what is said.
    assert [line for line in done.stderr.splitlines() if re.match(r"[A-Z]\d{4} |WARNING: All|.*oneDNN", line)] == []
    assert done.stderr.splitlines()[-1].startswith("tfos-job predict: error: 1 of 2 pictures could not be read: ")


def test_answers_come_batch_by_batch(train_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfos_job.inference.predictor.PREDICTED_BATCH", 2)
    asked = []

    def requests() -> Iterator[Request]:
        for number in range(5):
            asked.append(number)
            yield Request(str(number), cross())

    answers = Predictor(train_dir).answers(requests(), 1)
    assert asked == []
    assert [(answer.image, len(asked)) for answer in answers] == [("0", 2), ("1", 2), ("2", 4), ("3", 4), ("4", 5)]


def test_a_network_of_photographs_has_names_and_sees_colours_as_they_are(tmp_path: Path) -> None:
    names = ["cat", "big dog"]
    shape = {"num_classes": 2, "image_size": 16, "num_channels": 3, "keep_prob": 0.8}
    model = publish(tmp_path, model={"model_name": "chinese_rec", **shape}, characters=names, dataset_name="images")
    pixels = np.random.default_rng(0).integers(0, 80, (50, 70, 3), np.uint8)  # as dark as ink all over
    pixels[:5] = 255
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(pixels)))
    (found,), _ = ask(tmp_path, str(tmp_path / "a.png"))
    seen = to_float(preprocess(tf.constant(pixels[np.newaxis]), Form(image_size=16, num_channels=3, antialias=True)))
    expected = tf.nn.softmax(model(seen, training=False))[0].numpy()
    assert not found["inverted"]
    assert {guess["character"]: guess["probability"] for guess in found["top"]} == pytest.approx(
        dict(zip(names, expected.tolist(), strict=True)), abs=1e-5
    )


def test_an_image_comes_from_stdin(train_dir: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(files["a"]).read_bytes())))
    (from_stdin, from_file), error = ask(train_dir, "-", files["a"])
    assert error is None
    assert from_stdin == from_file | {"image": "-"}


# --- from Python ------------------------------------------------------------------------------------------------------


def test_every_kind_of_picture_has_the_same_answer(train_dir: Path, files: dict[str, str]) -> None:
    grey = cross()
    pictures = [
        files["a"],
        Path(files["a"]),
        Path(files["a"]).read_bytes(),
        bytearray(Path(files["a"]).read_bytes()),
        grey,
        grey[:, :, np.newaxis],
        np.repeat(grey[:, :, np.newaxis], 3, axis=2),
        Image.fromarray(grey),
        Image.open(files["a"]),
        transparent(),
    ]
    answers = Predictor(train_dir).predict(iter(pictures), top_k=4)
    assert [answer.pop("image") for answer in answers] == [
        *[files["a"]] * 2,
        *(f"pictures[{number}]" for number in range(2, len(pictures))),
    ]
    assert all(answer == answers[0] for answer in answers)
    assert len(answers[0]["top"]) == 4


def test_a_bad_picture_has_an_error_and_a_wrong_type_is_refused(train_dir: Path, files: dict[str, str]) -> None:
    predictor = Predictor(str(train_dir))
    cut = Image.open(io.BytesIO(Path(files["a"]).read_bytes()[:60]))
    answers = predictor.predict([files["nowhere"], files["c"], b"", cut, cross()])
    assert [list(answer) for answer in answers[:4]] == [["image", "error"]] * 4
    assert [answer["image"] for answer in answers[2:]] == ["pictures[2]", "pictures[3]", "pictures[4]"]
    assert answers[4]["top"]
    for wrong in (cross() / 255, cross()[np.newaxis, np.newaxis], np.empty((0, 4), np.uint8), None, 7):
        with pytest.raises(SettingsError, match=r"^pictures\[1\]: .* is no picture"):
            predictor.predict([cross(), wrong])


def test_one_picture_is_no_list(train_dir: Path, files: dict[str, str]) -> None:
    predictor = Predictor(train_dir)
    colours = np.repeat(cross()[:, :, np.newaxis], 3, axis=2)
    for one in (files["a"], Path(files["a"]), b"file", cross(), colours, Image.fromarray(cross())):
        with pytest.raises(SettingsError, match=r"^pictures: one picture is no list of pictures\. Give \[picture\]"):
            predictor.predict(one)  # type: ignore[arg-type]
    assert [answer["image"] for answer in predictor.predict(np.stack([cross()] * 2))] == ["pictures[0]", "pictures[1]"]
    with pytest.raises(SettingsError, match=r"^top_k: 0 is not a whole number of 1 or more"):
        predictor.predict([cross()], top_k=0)


def test_a_folder_may_be_on_any_file_system(train_dir: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b/2.png", "a/1.png", "a/.1.png", "notes.txt"):
        memory.pipe(f"/pages/{name}", encoded(Image.fromarray(cross())))
    try:
        lines, error = ask(train_dir, "memory://pages", "memory://pages/a/1.png", "memory://pages/none.png")
    finally:
        memory.rm("/pages", recursive=True)
    assert [line["image"] for line in lines[:3]] == [
        f"memory://pages/{name}" for name in ("a/1.png", "b/2.png", "a/1.png")
    ]
    assert all(line["top"] for line in lines[:3])
    assert isinstance(error, MissingInputError)


def test_threads_share_a_predictor(train_dir: Path) -> None:
    predictor = Predictor(train_dir, "last")
    pictures = [cross(12 + 2 * number) for number in range(8)]
    expected = [predictor.predict([picture]) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda picture: predictor.predict([picture]), pictures * 4)) == expected * 4
    assert (predictor.step, predictor.classes) == (7, tuple(CHARACTERS))
    assert predictor.checkpoint == RunLayout(str(train_dir)).checkpoint(7)


def test_the_steps_of_a_prediction_are_there_one_by_one(train_dir: Path) -> None:
    predictor = Predictor(train_dir)
    assert (predictor.form, predictor.on_paper) == (Form(image_size=16), True)
    seen = [predictor.see(Request(name, pixels)) for name, pixels in (("a", cross()), ("b", cross(60, 40)))]
    assert all(isinstance(one, Seen) for one in seen)
    images = predictor.images([one.pixels for one in seen if isinstance(one, Seen)])
    assert (images.dtype, images.shape) == (np.uint8, (2, 16, 16, 1))
    probabilities = predictor.probabilities(images)
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (2, len(CHARACTERS)))
    tops = predictor.tops(probabilities, 2)
    expected = predictor.answers([Request("a", cross()), Request("b", cross(60, 40))], 2)
    assert [one.with_top(top) for one, top in zip(seen, tops, strict=True) if isinstance(one, Seen)] == list(expected)
    assert predictor.tops(np.float32([[0.2, 0.4, 0.4]]), 2)[0] == (
        Guess("丁", 1, np.float32(0.4)),
        Guess("七", 2, np.float32(0.4)),
    )
    assert isinstance(predictor.see(Request("c", b"no image")), NoAnswer)
    assert isinstance(predictor.see(Request("d", np.full((9, 9), 255, np.uint8))), Answer)


@pytest.mark.parametrize("top_k", [1, 3, 16, 17, 40])
def test_of_any_number_of_classes_the_most_probable_come_first_and_of_equals_the_lower_id(
    train_dir: Path, top_k: int
) -> None:
    predictor = Predictor(train_dir)
    predictor.classes = tuple(map(chr, range(ord("一"), ord("一") + 40)))
    probabilities = np.random.default_rng(0).random((5, 40), np.float32).round(1)  # many equals
    probabilities[3] = np.nan
    before = probabilities.copy()
    tops = predictor.tops(probabilities, top_k)
    expected = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    assert [[guess.class_id for guess in top] for top in tops] == expected.tolist()
    np.testing.assert_array_equal(probabilities, before)


def test_the_digest_is_that_of_all_that_an_answer_follows_from(train_dir: Path, tmp_path: Path) -> None:
    info, arrays = checkpoints.read(RunLayout(str(train_dir)), "last")
    digest = model_digest(info, arrays)
    assert Predictor(train_dir).digest == digest
    assert model_digest(info, {**arrays, "optimizer/step": np.zeros(3)}) == digest
    name = next(name for name in arrays if name.startswith("model/"))
    others = [
        model_digest(info, {**arrays, name: arrays[name] + 1}),
        model_digest(info, {**arrays, "normalization/limits": np.zeros(2, np.float32)}),
        *(
            model_digest(CheckpointInfo(info.path, info.document | change), arrays)
            for change in (
                {"characters": "一丁七万三"},
                {"dataset_name": "images"},
                {"normalization": {"kind": "per_image"}},
            )
        ),
    ]
    assert len({digest, *others}) == 6


@pytest.mark.parametrize(
    "form",
    [Form(image_size=16), Form(image_size=16, num_channels=3), Form(image_size=16, num_channels=3, antialias=True)],
    ids=["grey", "colour", "photographs"],
)
def test_pictures_that_are_resized_together_are_as_each_alone(train_dir: Path, form: Form) -> None:
    predictor = Predictor(train_dir)
    predictor.form = form
    predictor._take(on_paper=False, raw_image=True)
    draw = np.random.default_rng(0)
    sizes = [(1, 1), (16, 16), (5, 90), (120, 7), (16, 17), (40, 40), (16, 16)]
    pictures = [draw.integers(0, 256, (*size, form.num_channels), np.uint8) for size in sizes]
    expected = np.concatenate([preprocess(tf.constant(picture[np.newaxis]), form) for picture in pictures])
    np.testing.assert_array_equal(predictor.images(pictures), expected)
    np.testing.assert_array_equal(predictor.images(pictures[:2]), expected[:2])
    np.testing.assert_array_equal(predictor.images([pictures[1], pictures[6]]), [pictures[1], pictures[6]])
    large = draw.integers(0, 256, (300, 300, form.num_channels), np.uint8)
    seen = predictor.see(Request("large", large if form.num_channels == 3 else large[:, :, 0]))
    assert isinstance(seen, Seen)
    np.testing.assert_array_equal(seen.pixels, preprocess(tf.constant(large[np.newaxis]), form)[0])


def test_pictures_and_levels_may_be_in_one_batch(train_dir: Path) -> None:
    predictor = Predictor(train_dir)
    pictures = [cross()[:, :, np.newaxis], cross(60, 40)[:, :, np.newaxis]]
    images = predictor.images(pictures)
    expected = predictor.probabilities(images)
    mixed = predictor.probabilities_of([pictures[0], images[1].astype(np.float32)])
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_no_more_is_read_of_a_file_than_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without an end would otherwise end the memory before its size is known."""
    (tmp_path / "large.png").write_bytes(bytes(1000))
    monkeypatch.setattr(image_files, "MAX_BYTES", 100)
    with pytest.raises(BadDataError, match="expected at most 100 bytes, found 101"):
        read(Request("large.png", str(tmp_path / "large.png")), num_channels=1)


@pytest.mark.parametrize("head", [png.SIGNATURE, b"GIF89a", b"\xff\xd8\xff", b"no picture"])
def test_a_picture_that_cannot_be_read_is_not_kept(train_dir: Path, head: bytes) -> None:
    """Not in a ring of answer, error and frames either, which only Python's collector would find."""
    predictor = Predictor(train_dir)

    def ask() -> None:
        found = [predictor.see(Request("damaged", head + bytes(1 << 20)))]
        assert isinstance(found[0], NoAnswer)

    sizes = []
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(9):
            ask()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
        gc.enable()
    assert sizes[-1] - sizes[0] < 1 << 20
