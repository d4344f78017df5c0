from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.unit.small_checkpoints import model_arrays
from tfos_job import storage
from tfos_job.config import EvaluateConfig
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import tfrecord
from tfos_job.formats.charset import Charset
from tfos_job.formats.form import Form
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest import load as load_manifest
from tfos_job.formats.manifest_parts import Shard
from tfos_job.inference.evaluation import Counts, batch_counts, count_shard, evaluate_shards, judge_shard
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.local_jobs.evaluate import evaluate
from tfos_job.networks import registry
from tfos_job.run import checkpoints, kept_predictions
from tfos_job.run.model_digest import model_digest
from tfos_job.run.predictions import Predictions

KS = (1, 3, 50)
CHARSET = Charset(tuple("一丁七万丈三上"))
NUM_CLASSES = len(CHARSET)
SHARD_SIZES = (5, 1, 7)
FORM = Form(image_size=8)


def numpy_counts(logits: np.ndarray, labels: np.ndarray, ks: tuple[int, ...] = KS) -> Counts:
    """The reference: a label's rank is the number of classes ahead of it, those of equal logits by class id."""
    own = logits[np.arange(len(labels)), labels][:, np.newaxis]
    ahead = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < labels[:, np.newaxis]))
    ranks = ahead.sum(axis=1)
    x = logits.astype(np.float64)
    losses = np.log(np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1)) + x.max(axis=1) - own[:, 0]
    return Counts(len(labels), float(losses.sum()), {k: int((ranks < k).sum()) for k in ks})


def assert_counts(found: Counts, expected: Counts) -> None:
    assert (found.num_examples, found.correct) == (expected.num_examples, expected.correct)
    assert found.loss_sum == pytest.approx(expected.loss_sum, rel=1e-5)


@pytest.mark.parametrize("levels", [1, 3, 1000], ids=["all equal", "many ties", "few ties"])
def test_top_k_counts_are_those_of_numpy_ties_and_all(levels: int) -> None:
    rng = np.random.default_rng(levels)
    logits = rng.integers(0, levels, (64, NUM_CLASSES)).astype(np.float32)
    labels = rng.integers(0, NUM_CLASSES, 64)
    vector = batch_counts(tf.constant(logits), tf.constant(labels), KS)
    assert_counts(Counts.from_vector(vector.numpy(), KS), numpy_counts(logits, labels))


def test_counts_add_up_and_divide_only_at_the_end() -> None:
    total = Counts.zero((1,)) + Counts(1, 2.0, {1: 1}) + Counts(3, 4.0, {1: 0})
    assert total.metrics() == {"num_examples": 4, "loss": 1.5, "top_1": 0.25}
    with pytest.raises(BadDataError, match="no record"):
        Counts.zero((1,)).metrics()


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return registry.build("chinese_rec", num_classes=NUM_CLASSES, image_size=8, keep_prob=0.8, seed=1)


def glyphs(count: int, seed: int) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, 256, (8, 8), np.uint8), int(rng.integers(NUM_CLASSES))) for _ in range(count)]


def parts() -> list[list[tuple[np.ndarray, int]]]:
    """The glyphs of each shard."""
    return [glyphs(size, seed) for seed, size in enumerate(SHARD_SIZES)]


def all_logits(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """Of all shards at once, preprocessed by numpy; and the labels."""
    examples = list(itertools.chain(*parts()))
    images = np.stack([pixels for pixels, _ in examples])[..., np.newaxis].astype(np.float32) / 255
    return np.asarray(model(images, training=False)), np.array([label for _, label in examples])


def reference(model: keras.Model) -> Counts:
    return numpy_counts(*all_logits(model))


@pytest.mark.parametrize("batch_size", [1, 3])  # of the shards some are a multiple of it, one is smaller
def test_each_record_counts_once_whatever_the_batch_size(
    model: keras.Model, batch_size: int, write_shard: Callable[..., str]
) -> None:
    shards = [write_shard(f"{i}.tfrecord", part) for i, part in enumerate(parts())]
    counts, predictions = evaluate_shards(model, shards, num_records=13, batch_size=batch_size, form=FORM, ks=KS)
    assert_counts(counts, reference(model))
    assert_predictions(predictions, model)


def assert_predictions(found: Predictions, model: keras.Model) -> None:
    """Against numpy, record by record."""
    logits, labels = all_logits(model)
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    assert found.shard_sizes == SHARD_SIZES
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.predicted, logits.argmax(axis=1))
    np.testing.assert_allclose(found.probabilities, probabilities.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.losses, -np.log(probabilities[np.arange(len(labels)), labels]), rtol=1e-5)


def test_what_is_kept_of_each_record_changes_no_bit_of_the_counts(
    model: keras.Model, write_shard: Callable[..., str]
) -> None:
    def call(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    def graph(work: Callable[..., Any]) -> Callable[[tf.Tensor], Any]:
        on_shard = functools.partial(work, call, batch_size=3, form=FORM, ks=KS)
        return tf.function(on_shard, [tf.TensorSpec([], tf.string)])

    num_batches = 0

    def each_batch() -> None:
        nonlocal num_batches
        num_batches += 1

    count, judge = graph(count_shard), graph(functools.partial(judge_shard, each_batch=each_batch))
    for i, part in enumerate([*parts(), []]):
        shard = tf.constant(write_shard(f"{i}.tfrecord", part))
        counts, columns = judge(shard)
        assert counts.numpy().tobytes() == count(shard).numpy().tobytes()
        assert [column.shape for column in columns] == [(len(part),)] * 4
    assert num_batches == sum(-(-size // 3) for size in SHARD_SIZES)


@pytest.fixture
def config(model: keras.Model, tmp_path: Path, write_shard: Callable[..., str]) -> EvaluateConfig:
    """A dataset of three shards and a run with one checkpoint on it."""
    split = DatasetLayout(str(tmp_path)).split("test")
    Path(split.generation(0)).mkdir(parents=True)
    shards = []
    for i, part in enumerate(parts()):
        file = f"test/gen-00000/{i}.tfrecord"
        write_shard(file, part)
        shards.append(Shard(file=file[5:], size_bytes=1, sha256=f"{i}" * 64, num_records=len(part), sources=()))
    labels = [label for part in parts() for _, label in part]
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
    storage.write_json(split.manifest, contents.to_json())
    checkpoints.publish(
        RunLayout(str(tmp_path / "run")),
        20,
        model_arrays(model),
        {
            "model": {"model_name": "chinese_rec", "num_classes": NUM_CLASSES, "image_size": 8, "keep_prob": 0.8},
            "characters": "".join(CHARSET.characters),
            "charset_digest": CHARSET.digest,
            "dataset_digest": contents.digest,
            "input_position": {},
            "metrics": {},
        },
    )
    return EvaluateConfig(dataset_dir=str(tmp_path), train_dir=str(tmp_path / "run"), batch_size=4, top_k="1,3,50")


def test_evaluate_restores_the_network_and_records_what_it_counted(config: EvaluateConfig, model: keras.Model) -> None:
    result = evaluate(config)
    recorded = json.loads(Path(RunLayout(config.train_dir).evaluation(20, "test")).read_text("utf-8"))
    run = RunLayout(config.train_dir)
    place = {"checkpoint": run.checkpoint(20), "pictures": run.evaluation_pictures(20, "test")}
    assert result == recorded | place | {"predictions": run.evaluation_predictions(20, "test")}
    metrics = {key: value for key, value in recorded.items() if key not in ("step", "split", "ece")}
    assert 0 <= recorded["ece"] <= 1
    assert metrics == pytest.approx(reference(model).metrics(), rel=1e-5)
    assert (recorded["step"], recorded["split"]) == (20, "test")


def test_the_predictions_are_kept_with_whose_they_are_and_for_which_records(config: EvaluateConfig) -> None:
    run = RunLayout(config.train_dir)
    storage.write_json(run.config, {"epoch": 5})
    result = evaluate(config)
    kept, _ = kept_predictions.read(result["predictions"])
    info, arrays = checkpoints.read_network(run, "last")
    split = DatasetLayout(config.dataset_dir).split("test")
    contents = load_manifest(split)
    header = kept.header
    assert header.model_digest == model_digest(info, arrays)
    assert (header.dataset_digest, header.charset_digest) == (contents.digest, CHARSET.digest)
    assert (header.num_classes, header.train_flags, header.step, header.split) == (
        NUM_CLASSES,
        {"epoch": 5},
        20,
        "test",
    )
    assert header.metrics["top_1"] == result["top_1"] == kept.predictions.is_correct.mean()
    assert kept.predictions.losses.mean() == pytest.approx(result["loss"], rel=1e-5)
    assert kept.predictions.shard_sizes == tuple(shard.num_records for shard in contents.shards)
    per_class = np.bincount(kept.predictions.labels, minlength=NUM_CLASSES)
    assert per_class.tolist() == list(contents.class_counts)


def test_another_charset_is_refused_with_both_shown(config: EvaluateConfig) -> None:
    run = RunLayout(config.train_dir)
    document = checkpoints.verify(run.checkpoint(20)).document
    other = {key: document[key] for key in checkpoints.META_KEYS} | {"charset_digest": "f" * 64}
    checkpoints.publish(run, 21, checkpoints.load(checkpoints.verify(run.checkpoint(20))), other)
    with pytest.raises(SettingsError, match=f"{CHARSET.digest[:12]} is not .* {'f' * 12}"):
        evaluate(config)
    evaluate(dataclasses.replace(config, checkpoint=run.checkpoint(20), numbers_only=True))


def test_images_of_other_channels_are_refused(config: EvaluateConfig) -> None:
    path = Path(DatasetLayout(config.dataset_dir).split("test").manifest)
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"num_channels": 3}), "utf-8")
    with pytest.raises(SettingsError, match=r"images of 3 channel\(s\), .* was trained on 1"):
        evaluate(config)


def test_a_shard_that_lost_a_record_is_noticed(config: EvaluateConfig, write_shard: Callable[..., str]) -> None:
    write_shard("test/gen-00000/2.tfrecord", glyphs(6, 2))
    with pytest.raises(BadDataError, match="holds 12 records, its manifest says 13"):
        evaluate(config)
    assert not Path(RunLayout(config.train_dir).evaluation_dir).exists()


def test_a_damaged_shard_is_named(config: EvaluateConfig) -> None:
    shard = Path(config.dataset_dir, "test/gen-00000/2.tfrecord")
    data = shard.read_bytes()
    with shard.open("rb") as stream:
        *_, (last, _) = tfrecord.read_records(stream, "")
    shard.write_bytes(data[:-1])
    with pytest.raises(BadDataError, match=rf"gen-00000/2\.tfrecord, byte {last}: truncated"):
        evaluate(config)
