"""`inspect`, `evaluate`'s pictures and `report`, as commands on a small dataset and run."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.unit import streams
from tests.unit.reader import Parsed, assert_self_contained
from tests.unit.small_checkpoints import model_arrays
from tfos_job import cli, storage
from tfos_job.config import AugmentationConfig, EvaluateConfig, TrainConfig, to_dict
from tfos_job.errors import BadDataError
from tfos_job.formats import manifest as manifests
from tfos_job.formats import sampling, tf_example, tfrecord
from tfos_job.formats.charset import Charset
from tfos_job.formats.excerpt import read_positions
from tfos_job.formats.form import Form
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import Shard
from tfos_job.input.augmentation import augment
from tfos_job.input.decoding import to_float
from tfos_job.input.normalization import Normalization
from tfos_job.layout import DatasetLayout, RunLayout, SplitLayout
from tfos_job.lease import Lease
from tfos_job.local_jobs import report
from tfos_job.local_jobs.evaluate import evaluate as evaluate_run
from tfos_job.networks import registry
from tfos_job.reports import evaluation_tables, montage, sample
from tfos_job.reports.sample import InputView
from tfos_job.run import checkpoints, summary

CHARACTERS = "一丁七万丈三上"
CHARSET = Charset(tuple(CHARACTERS))
NUM_CLASSES = len(CHARACTERS)
SHARD_SIZES = (9, 0, 4, 17)
SIDE = 8
AUGMENTATIONS = ("--random_flip_up_down", "--random_brightness", "--random_contrast")
ALL = {"confusions", "per_class", "calibration", "hardest"}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    model = registry.build("chinese_rec", num_classes=NUM_CLASSES, image_size=SIDE, keep_prob=0.8, seed=1)
    for variable in model.trainable_variables:
        variable.assign(variable * 4)  # so that it makes guesses of all kinds, some of them sure
    return model


def example(number: int, draw: np.random.Generator) -> tuple[bytes, int]:
    label = int(draw.integers(NUM_CLASSES - 1))  # the last class stays empty
    pixels = draw.integers(0, 256, (SIDE, SIDE), np.uint8)
    features: dict[str, bytes | int] = {
        "image/encoded": pixels.tobytes(),
        "image/format": b"raw",
        "image/height": SIDE,
        "image/width": SIDE,
        "image/class/label": label,
        "image/class/text": CHARACTERS[label].encode(),
        "source/file": b"1001-c.gnt",
        "source/offset": 100 * number,
    }
    return tf_example.encode_example(features), label


@pytest.fixture(scope="module")
def template(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dataset` with the split test, and `run` with a checkpoint at step 20, a report and its settings."""
    root = tmp_path_factory.mktemp("template")
    dataset = DatasetLayout(str(root / "dataset"))
    split = dataset.split("test")
    Path(split.generation(0)).mkdir(parents=True)
    draw, shards, labels = np.random.default_rng(5), [], []
    for i, size in enumerate(SHARD_SIZES):
        path = Path(split.generation(0), f"part-{i}.tfrecord")
        with path.open("wb") as stream:
            for _ in range(size):
                data, label = example(len(labels), draw)
                tfrecord.write_record(stream, data)
                labels.append(label)
        shards.append(
            Shard(
                file=f"gen-00000/{path.name}", size_bytes=path.stat().st_size, sha256=f"{i}" * 64, num_records=size,
                sources=(),
            )
        )  # fmt: skip
    contents = Manifest(
        split_name="test",
        generation=0,
        image_format="raw",
        charset_digest=CHARSET.digest,
        shards=tuple(shards),
        sources=(),
        class_counts=tuple(np.bincount(labels, minlength=NUM_CLASSES).tolist()),
        settings={},
        history=(),
        created="",
        package_version="0",
    )
    storage.write_json(dataset.charset, CHARSET.to_json())
    storage.write_json(split.manifest, contents.to_json())
    run = RunLayout(str(root / "run"))
    meta = {
        "model": {"model_name": "chinese_rec", "num_classes": NUM_CLASSES, "image_size": SIDE, "keep_prob": 0.8},
        "characters": CHARACTERS,
        "charset_digest": CHARSET.digest,
        "dataset_digest": contents.digest,
        "input_position": {},
        "metrics": {},
    }
    checkpoints.publish(run, 20, model_arrays(model), meta)
    point = {"loss": 2.0, "top_1": 0.1, "learning_rate": 1e-3, "images_per_second": 9.0}
    curve = [{"step": 1, **point}, {"step": 20, **point}]
    storage.write_json(run.report, {"state": "finished", "exit_code": 0, "step": 20, "curve": curve, "attempts": []})
    return root


def copied(source: Path, target: Path) -> Path:
    """A dataset and a run of its own, as the run's settings say."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = TrainConfig(
        dataset_dir=str(target / "dataset"),
        train_dir=str(target / "run"),
        dataset_split_name="test",
        image_size=SIDE,
        random_flip_up_down=True,
        random_brightness=0.3,
        random_contrast=0.2,
    )
    storage.write_json(RunLayout(config.train_dir).config, to_dict(config))
    return target


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """A copy of the template that a test may change."""
    return copied(template, tmp_path)


class Evaluated(NamedTuple):
    """A copy of the template with an evaluation, for all who only read it."""

    root: Path
    result: dict[str, Any]

    @property
    def folder(self) -> Path:
        return Path(self.result["pictures"])


@pytest.fixture(scope="module")
def evaluated(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    root = copied(template, tmp_path_factory.mktemp("evaluated"))
    folders = {"dataset_dir": str(root / "dataset"), "train_dir": str(root / "run")}
    return Evaluated(root, evaluate_run(EvaluateConfig(**folders, batch_size=7)))


Main = Callable[..., Any]


@pytest.fixture
def main(capfd: pytest.CaptureFixture[str]) -> Main:
    """Runs a command, which must end well; returns the JSON object of stdout's last line."""

    def run(*argv: object) -> Any:
        capfd.readouterr()
        assert cli.main([str(word) for word in argv]) == 0
        return json.loads(capfd.readouterr().out.splitlines()[-1])

    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# --- inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_draws_a_split_and_counts_its_classes(root: Path, main: Main) -> None:
    result = main("inspect", "--dataset_dir", root / "dataset", "--dataset_split_name", "test",
                  "--output_dir", root / "out" / "pictures", "--image_size", SIDE, *AUGMENTATIONS)  # fmt: skip
    counts = manifests.load(DatasetLayout(str(root / "dataset")).split("test")).class_counts
    assert [(row["class_id"], row["text"], int(row["records"])) for row in rows(Path(result["class_counts"]))] == [
        (str(i), CHARACTERS[i], count) for i, count in enumerate(counts)
    ]
    expected = {
        "num_records": 30,
        "num_classes": NUM_CLASSES,
        "num_empty_classes": 1,
        "num_images": 24,
        "split": "test",
    }
    assert expected.items() <= result.items()
    assert result["rarest"][0]["records"] == min(count for count in counts if count)
    assert result["most_frequent"][0]["records"] == max(counts)
    for key in ("contact_sheet", "class_histogram"):
        Image.open(result[key]).verify()
    assert sorted(path.name for path in (root / "out" / "pictures").iterdir()) == [
        "class_histogram.csv", "class_histogram.png", "contact_sheet.png",
    ]  # fmt: skip


def test_the_contact_sheet_shows_what_the_pipeline_makes(root: Path) -> None:
    split = DatasetLayout(str(root / "dataset")).split("test")
    contents = manifests.load(split)
    options = AugmentationConfig(random_flip_up_down=True, random_brightness=0.3, random_contrast=0.2)
    taken = sample.take(split, contents, InputView(image_size=SIDE, augmentation=options), num_images=30, seed=3)
    images, labels = read(split)
    order = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(taken.class_ids, labels[order])
    np.testing.assert_array_equal(to_float(taken.stored), images[order])
    # Each version is the training pipeline's own, but for the clipping, without which nothing could be shown.
    for version in range(sample.NUM_VERSIONS):
        indices = tf.range(30, dtype=tf.int64) * sample.NUM_VERSIONS + version
        seen = augment(to_float(taken.stored), tf.constant(3, tf.int64), indices, options).numpy()
        np.testing.assert_allclose(taken.augmented[:, version] / 255, np.clip(seen, 0, 1), atol=0.51 / 255)
    assert len({taken.augmented[0, version].tobytes() for version in range(sample.NUM_VERSIONS)}) > 1


@pytest.mark.parametrize("num_channels", [1, 3])
def test_without_augmentation_there_are_no_versions(root: Path, num_channels: int) -> None:
    split = DatasetLayout(str(root / "dataset")).split("test")
    contents = dataclasses.replace(manifests.load(split), num_channels=num_channels)
    taken = sample.take(split, contents, InputView(image_size=SIDE), num_images=5, seed=0)
    assert taken.augmented.shape == (5, 0, SIDE, SIDE, num_channels)
    assert sample.contact_sheet(taken, CHARACTERS, split_name="test").startswith(b"\x89PNG")


def test_a_split_as_a_runs_network_sees_it(root: Path, main: Main, capfd: pytest.CaptureFixture[str]) -> None:
    folders = ("--dataset_dir", root / "dataset", "--output_dir", root / "seen", "--dataset_split_name", "test")
    of_the_run = main("inspect", *folders, "--train_dir", root / "run")
    seen = Path(of_the_run["contact_sheet"]).read_bytes()
    by_hand = main("inspect", *folders, "--image_size", SIDE, *AUGMENTATIONS)
    assert Path(by_hand["contact_sheet"]).read_bytes() == seen
    assert cli.main([*map(str, ("inspect", *folders, "--train_dir", root / "run", *AUGMENTATIONS))]) == 78
    assert "--random_flip_up_down: given together with --train_dir" in capfd.readouterr().err


def test_normalized_values_are_scaled_to_what_can_be_shown(root: Path) -> None:
    split = DatasetLayout(str(root / "dataset")).split("test")
    contents = manifests.load(split)
    normalization = Normalization(kind="dataset", arrays={"mean": np.float32([0.5]), "stddev": np.float32([0.01])})
    taken = sample.take(split, contents, InputView(image_size=SIDE, normalization=normalization), num_images=30, seed=0)
    assert taken.words == "normalized (dataset)"
    assert taken.augmented.shape == (30, 1, SIDE, SIDE, 1)
    # One value after the other is moved and scaled alike: the order of pixels stays.
    before, after = taken.stored.ravel().astype(int), taken.augmented.ravel().astype(int)
    assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all()
    assert (after.min(), after.max()) == (0, 255)


def test_the_same_seed_gives_the_same_pictures(root: Path, main: Main) -> None:
    def draw(name: str, seed: int) -> bytes:
        flags = ("--dataset_split_name", "test", "--image_size", SIDE, "--num_images", 8, *AUGMENTATIONS)
        result = main("inspect", "--dataset_dir", root / "dataset", "--output_dir", root / name, "--seed", seed, *flags)
        return Path(result["contact_sheet"]).read_bytes()

    assert draw("a", 7) == draw("b", 7) != draw("c", 8)


def test_a_sample_of_a_large_split_reads_a_part_of_it() -> None:
    shard = Shard(file="f", size_bytes=1 << 30, sha256="0" * 64, num_records=100_000, sources=())
    contents = Manifest(
        split_name="train", generation=0, image_format="raw", charset_digest="", shards=(shard,) * 100, sources=(),
        class_counts=(10_000_000,), settings={}, history=(), created="", package_version="0",
    )  # fmt: skip
    positions, num_eligible = sampling.choose(contents, 24, seed=0)
    assert len(positions) <= 8
    assert sum(map(len, positions.values())) == 24
    assert max(map(max, positions.values())) < 100_000 / 64  # 16 MiB of a GiB
    assert num_eligible == 8 * (100_000 // 64)
    assert sampling.choose(contents, 24, seed=0) == (positions, num_eligible)
    assert sampling.choose(contents, 24, seed=1)[0] != positions


def test_a_shard_that_is_shorter_than_its_manifest_says_is_named(root: Path) -> None:
    path = str(root / "dataset" / "test" / "gen-00000" / "part-2.tfrecord")
    assert sorted(read_positions(path, [3, 0])) == [0, 3]
    assert read_positions(path, []) == {}
    with pytest.raises(BadDataError, match=r"part-2\.tfrecord: has 4 records, expected 6 or more"):
        read_positions(path, [1, 5])


# --- evaluate --------------------------------------------------------------------------------------------------------


def read(split: SplitLayout) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, as evaluation sees them."""
    paths = manifests.shard_paths(split, manifests.load(split))
    return streams.evaluation(batch_size=30, form=Form(image_size=SIDE))(paths)


def logits_and_labels(root: Path, model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read(DatasetLayout(str(root / "dataset")).split("test"))
    return np.asarray(model(images, training=False)), labels


def evaluate(main: Main, root: Path, *flags: str) -> Any:
    return main("evaluate", "--dataset_dir", root / "dataset", "--train_dir", root / "run", "--batch_size", 7, *flags)


def test_tables_hold_what_was_counted(evaluated: Evaluated, model: keras.Model) -> None:
    folder = evaluated.folder
    logits, labels = logits_and_labels(evaluated.root, model)
    guesses = logits.argmax(axis=1)
    matrix = np.zeros((NUM_CLASSES, NUM_CLASSES), int)
    np.add.at(matrix, (labels, guesses), 1)
    off_diagonal = {(i, j): matrix[i, j] for i, j in np.argwhere(matrix) if i != j}
    confusions = rows(folder / "confusions.csv")
    assert len(off_diagonal) > 3
    assert {(int(r["class_id"]), int(r["guess_id"])): int(r["count"]) for r in confusions} == off_diagonal
    assert all(
        (r["text"], r["guess"]) == (CHARACTERS[int(r["class_id"])], CHARACTERS[int(r["guess_id"])]) for r in confusions
    )
    counts = [int(r["count"]) for r in confusions]
    assert counts == sorted(counts, reverse=True)
    for i, row in enumerate(rows(folder / "per_class.csv")):
        total, right = matrix[i].sum(), matrix[i, i]
        assert (row["text"], int(row["records"]), int(row["correct"])) == (CHARACTERS[i], total, right)
        assert row["top_1"] == (f"{right / total:.6f}" if total else "")
        wrong = [matrix[i, j] if j != i else 0 for j in range(NUM_CLASSES)]
        most = row["most_frequent_wrong_guess"]
        assert wrong[CHARACTERS.index(most)] == max(wrong) if most else max(wrong) == 0


def test_the_hardest_are_the_maxima_and_lead_back_to_their_source(evaluated: Evaluated, model: keras.Model) -> None:
    logits, labels = logits_and_labels(evaluated.root, model)
    x = logits.astype(np.float64)
    probabilities = np.exp(x - x.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    losses = -np.log(probabilities[np.arange(30), labels])
    table = rows(evaluated.folder / "hardest.csv")
    assert [int(row["source_offset"]) // 100 for row in table] == np.argsort(-losses, kind="stable").tolist()
    for row in table:
        record = int(row["source_offset"]) // 100
        assert row["source_file"] == "1001-c.gnt"
        assert (int(row["class_id"]), int(row["guess_id"])) == (labels[record], logits[record].argmax())
        assert float(row["loss"]) == pytest.approx(losses[record], abs=1e-4)
        assert float(row["class_probability"]) == pytest.approx(np.exp(-losses[record]), abs=1e-4)
        assert float(row["guess_probability"]) == pytest.approx(probabilities[record].max(), abs=1e-4)
        with open(row["shard"], "rb") as stream:
            found = dict(tfrecord.read_records(stream, ""))[int(row["shard_offset"])]
        assert tf_example.decode_example(found)["source/offset"] == 100 * record


def test_the_hardest_image_is_drawn_first(evaluated: Evaluated) -> None:
    with open((hardest := rows(evaluated.folder / "hardest.csv")[0])["shard"], "rb") as stream:
        (data,) = [d for offset, d in tfrecord.read_records(stream, "") if offset == int(hardest["shard_offset"])]
    encoded = tf_example.decode_example(data)["image/encoded"]
    pixels = np.frombuffer(encoded, np.uint8).reshape(SIDE, SIDE)  # type: ignore[arg-type]
    side = montage.side_of(SIDE)
    picture = np.asarray(Image.open(evaluated.folder / "hardest.png").convert("L"))
    left = montage.MARGIN + (104 - side) // 2
    cell = picture[montage.HEAD : montage.HEAD + side, left : left + side]
    np.testing.assert_array_equal(cell[:: side // SIDE, :: side // SIDE], pixels)


def test_numbers_are_the_same_without_pictures(evaluated: Evaluated, tmp_path: Path, main: Main) -> None:
    root = copied(evaluated.root, tmp_path)
    run = RunLayout(str(root / "run"))
    folder = Path(run.evaluation_pictures(20, "test"))
    assert {path.stem for path in folder.glob("*.png")} == ALL
    recorded = folder.with_suffix(".json").read_bytes()
    tables = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".png"}
    (folder / "of-an-earlier-version.png").write_bytes(b"")
    plain = evaluate(main, root, "--numbers_only")
    place = {"pictures": None, "checkpoint": run.checkpoint(20), "predictions": run.evaluation_predictions(20, "test")}
    assert plain == evaluated.result | place
    assert folder.with_suffix(".json").read_bytes() == recorded
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: data for name, data in tables.items() if name != "hardest.csv"
    }
    calibration = json.loads(tables["calibration.json"])
    assert calibration["ece"] == plain["ece"]
    assert sum(b["num_examples"] for b in calibration["bins"]) == 30
    assert not [path.name for path in folder.parent.iterdir() if path.name.startswith("_")]


def test_a_picture_that_fails_is_a_warning(
    root: Path, main: Main, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise ValueError("no ink")

    monkeypatch.setattr(montage, "confusions", fail)
    folder = Path(evaluate(main, root)["pictures"])
    assert {path.stem for path in folder.glob("*.png")} == ALL - {"confusions"}
    assert "No confusions.png: no ink" in caplog.text

    monkeypatch.setattr(evaluation_tables, "tables", fail)
    again = evaluate(main, root)
    assert again["pictures"] is None
    assert again["num_examples"] == 30
    assert {path.stem for path in folder.glob("*.png")} == ALL - {"confusions"}, "what was there is gone"


def test_who_stops_an_evaluation_while_it_draws_stops_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> bytes:
        signal.raise_signal(signal.SIGTERM)
        return b""

    monkeypatch.setattr(montage, "confusions", stop)
    argv = ["evaluate", "--dataset_dir", str(root / "dataset"), "--train_dir", str(root / "run")]
    assert cli.main(argv) == 143
    assert Path(RunLayout(str(root / "run")).evaluation(20, "test")).exists()


def test_classes_of_any_name_are_drawn(root: Path, main: Main) -> None:
    run = RunLayout(str(root / "run"))
    document = checkpoints.verify(run.checkpoint(20)).document
    names = ["<b>", "traffic light at a crossing", "", "ก", "$", "三", "上"]
    meta = {key: document[key] for key in checkpoints.META_KEYS} | {"characters": names}
    checkpoints.publish(run, 21, checkpoints.load(checkpoints.verify(run.checkpoint(20))), meta)
    folder = Path(evaluate(main, root)["pictures"])
    assert {path.stem for path in folder.glob("*.png")} == ALL
    assert [row["text"] for row in rows(folder / "per_class.csv")] == names


# --- report ----------------------------------------------------------------------------------------------------------


def test_report_prints_the_account(root: Path, main: Main) -> None:
    assert main("report", "--train_dir", root / "run") == json.loads((root / "run" / "report.json").read_text())


def test_a_running_report_whose_driver_is_gone_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = RunLayout(str(tmp_path))
    storage.write_json(run.report, {"state": "running"})
    with Lease(run.lock, "tfos-job train"):
        assert summary.read_report(run.root) == {"state": "running"}
    assert summary.read_report(run.root) == {"state": "running", "abandoned": True}
    assert cli.main(["report", "--train_dir", run.root]) == 0
    assert "abandoned: it says that it runs, but its driver is gone" in capfd.readouterr().err
    report.write_page(run.root, summary.read(run.root), str(tmp_path / "page.html"), None, "")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert '<div class="verdict bad">\n<p class="state">Abandoned: it says that it runs, but its driver is gone' in text


def test_a_folder_without_a_report_is_no_run(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for flags in ([], ["--html", str(root / "page.html")]):
        assert cli.main(["report", "--train_dir", str(root / "dataset"), *flags]) == 66
        assert "no such run: it has no report" in capfd.readouterr().err
    assert not (root / "page.html").exists()


def test_the_page_has_all_of_a_run(evaluated: Evaluated, tmp_path: Path, main: Main) -> None:
    result = main("report", "--train_dir", evaluated.root / "run", "--html", tmp_path / "new" / "page.html")
    text = Path(result["html"]).read_text("utf-8")
    assert_self_contained(text)
    parsed = Parsed(text)
    assert result["missing"] == []
    assert len(parsed.images()) == result["num_pictures"] == 4 + 4 + 2
    embedded = {base64.b64decode(str(image["src"]).partition(",")[2]) for image in parsed.images()}
    assert {path.read_bytes() for path in evaluated.folder.glob("*.png")} <= embedded
    assert all(image["alt"] for image in parsed.images())
    for word in ("test, step 20", "丁", "num_executors", "most confused", str(evaluated.root / "dataset")):
        assert word in parsed.text


def test_the_page_names_what_is_missing(evaluated: Evaluated, tmp_path: Path, main: Main) -> None:
    root = copied(evaluated.root, tmp_path)
    folder = Path(RunLayout(str(root / "run")).evaluation_pictures(20, "test"))
    (folder / "hardest.png").unlink()
    (folder / "calibration.png").write_bytes(b"GIF")
    (folder / "per_class.csv").write_text("nonsense\n1")
    (folder.parent / "step-00000003-test.json").write_text("{")
    shutil.rmtree(root / "dataset")
    storage.write_json(RunLayout(str(root / "run")).report, {"state": "failed", "curve": [{"step": 1}]})
    result = main("report", "--train_dir", root / "run", "--html", root / "page.html")
    parsed = Parsed(Path(result["html"]).read_text("utf-8"))
    told = " | ".join(result["missing"])
    for words in ("curve of loss", "hardest.png", "calibration.png", "step-00000003-test.json", "pictures of the data",
                  "tables of test, step 20"):  # fmt: skip
        assert f"No {words}" in told
        assert f"No {words}" in parsed.text
    assert result["num_pictures"] == 2


def test_a_page_of_a_run_without_anything_else(root: Path, main: Main) -> None:
    for path in (root / "run").iterdir():
        if path.name != "report.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = main("report", "--train_dir", root / "run", "--html", root / "page.html")
    assert len(result["missing"]) == 3  # evaluations, data, settings
    Parsed(Path(result["html"]).read_text("utf-8"))


def test_the_verdict_comes_first_beside_that_of_the_run_before(
    evaluated: Evaluated, tmp_path: Path, main: Main
) -> None:
    for name, ended in (("earlier", "2026-11-28T02:00:00Z"), ("later", "2026-11-29T02:10:00Z")):
        shutil.copytree(evaluated.root / "run", tmp_path / name)
        attempt = {"started": ended.replace(":10:", ":00:"), "ended": ended, "host": "node7", "state": "finished"}
        known = json.loads((tmp_path / name / "report.json").read_text())
        storage.write_json(RunLayout(str(tmp_path / name)).report, known | {"attempts": [attempt]})
    path = next((tmp_path / "earlier" / "evaluation").glob("step-*-test.json"))
    storage.write_json(str(path), json.loads(path.read_text()) | {"top_1": 0.0})
    top_1 = json.loads((tmp_path / "later" / "evaluation" / path.name).read_text())["top_1"]
    result = main("report", tmp_path / "later", "--html", tmp_path / "page.html")
    assert result["compared_with"] == str(tmp_path / "earlier")
    page = Parsed((tmp_path / "page.html").read_text("utf-8"))
    words = " ".join(page.text.split())
    verdict = words[words.index("Finished") : words.rindex("Curves")]
    assert words.startswith(f"{tmp_path / 'later'}: finished")
    assert f"top-1, test {100 * top_1:.1f} % +{100 * top_1:.2f} points" in verdict
    for part in ("duration 10 min", "host node7", "tfos-job train --dataset_dir", str(tmp_path / "earlier")):
        assert part in verdict
    assert words.index("Settings that were given") < words.index("defaults")


def test_what_is_the_same_for_all_classes_is_a_sentence(evaluated: Evaluated, tmp_path: Path, main: Main) -> None:
    root = copied(evaluated.root, tmp_path)
    folder = Path(RunLayout(str(root / "run")).evaluation_pictures(20, "test"))
    table = rows(folder / "per_class.csv")
    with (folder / "per_class.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, table[0])
        writer.writeheader()
        writer.writerows(row | {"top_1": "1.000000" if row["top_1"] else ""} for row in table)
    text = Path(main("report", root / "run", "--html", root / "page.html")["html"]).read_text("utf-8")
    assert "<summary>Top-1 of every class that has records is 100.0 %.</summary>" in text
    assert "<summary>Each of the" not in text, "one class is empty"
    contents = manifests.load(DatasetLayout(str(root / "dataset")).split("test"))
    assert sample.same_counts(contents) == ""
    alike = dataclasses.replace(contents, class_counts=(1200,) * 3755)
    assert sample.same_counts(alike) == "Each of the 3,755 classes has 1,200 records."


def test_runs_beside_each_other(evaluated: Evaluated, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one, two = (copied(evaluated.root, tmp_path / name) / "run" for name in ("a", "b"))
    changed = json.loads((two / "config.json").read_text()) | {"learning_rate": 0.5}
    storage.write_json(RunLayout(str(two)).config, changed)
    words = ["report", str(one), str(tmp_path / "no"), str(two)]
    assert cli.main([*words, "--html", str(tmp_path / "page.html")]) == 66
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert [run["run"] for run in result["runs"]] == [str(one), str(two)]
    assert result["runs"][0]["scores"]["test"]["num_examples"] == 30
    assert result["settings"]["learning_rate"] == [0.0002, 0.5]
    assert "seed" not in result["settings"]
    assert "no such run" in result["errors"][str(tmp_path / "no")]
    assert err.splitlines()[-1].startswith(f"tfos-job report: error: {tmp_path / 'no'}/report.json: no such run")
    for line in ("a/run", "state", "finished", "learning_rate"):
        assert line in err
    text = (tmp_path / "page.html").read_text("utf-8")
    assert_self_contained(text)
    page = Parsed(text)
    assert len(page.images()) == 4  # loss, top-1, learning rate and images/s of training
    for part in ("a/run", "b/run", "learning_rate", "0.5", "no such run", "No run has values of validation loss"):
        assert part in page.text
    assert cli.main(["report", str(tmp_path / "no"), str(tmp_path / "nor")]) == 66
    assert cli.main(["report"]) == 2
    for odd in ([str(one), "--train_dir", str(two)], [str(one), str(two), "--compare_to", str(one)]):
        assert cli.main(["report", *odd]) == 78
