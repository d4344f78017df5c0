"""A checkpoint and what is exported of it are one model: the same answers, the same digest, and nothing half done."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image
from tensorflow.core.framework import tensor_pb2
from tensorflow.lite.python import schema_py_generated

from tests.unit import small_runs
from tests.unit.small_checkpoints import flip_byte, record_evaluation
from tests.unit.small_runs import CHARSET, STEP, SmallRun, png
from tfos_job import storage
from tfos_job.commands import export as commands
from tfos_job.config import ExportConfig, PredictConfig
from tfos_job.errors import BadDataError, BusyError, FlagError, JobError, MissingInputError, SettingsError
from tfos_job.formats import tfrecord
from tfos_job.formats.form import Form
from tfos_job.inference import portable, saved_model, warm_up
from tfos_job.inference.evaluation import evaluate_shards
from tfos_job.inference.ink_statistics import InkStatistics, measure
from tfos_job.inference.parity import parity
from tfos_job.inference.pictures import Request
from tfos_job.inference.predictor import Predictor, Seen
from tfos_job.inference.training_pictures import TrainingPictures
from tfos_job.layout import ExportLayout, RunLayout
from tfos_job.lease import Lease
from tfos_job.local_jobs.export import export
from tfos_job.local_jobs.predict import predict
from tfos_job.local_jobs.serve import ExportSource, RunSource
from tfos_job.networks import variables
from tfos_job.run import checkpoints, exports
from tfos_job.run.checkpoint_files import document_digest

NEAR = 1e-4
NUM_CLASSES = len(CHARSET)


@dataclass(frozen=True)
class Exported:
    """A run, the folder of its exported versions, the first version, and what `export` has returned."""

    run: SmallRun
    export_dir: str
    path: str
    result: dict[str, Any]

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((Path(self.path) / "export.json").read_text("utf-8"))
        return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("exported")
    run = small_runs.make(root)
    record_evaluation(RunLayout(run.train_dir), STEP, "test", 0.25)
    export_dir = str(root / "versions")
    result = export(ExportConfig(train_dir=run.train_dir, export_dir=export_dir, top_k=3, formats="tflite,onnx"))
    return Exported(run, export_dir, f"{export_dir}/1", result)


@pytest.fixture(scope="module")
def loaded(exported: Exported) -> Any:
    """The SavedModel, loaded once for all: whoever proves that it can be loaded does so in a process of its own."""
    return tf.saved_model.load(exported.path)


@pytest.fixture(scope="module")
def of_crops(exported: Exported) -> Predictor:
    """Of the run, for crops as they are in its dataset."""
    return Predictor(exported.run.train_dir, raw_image=True)


def in_parts(signature: Any, images: Any) -> dict[str, np.ndarray]:
    """The outputs of a signature for images, given in batches of 50."""
    batches = [signature(images=tf.constant(images[at : at + 50])) for at in range(0, len(images), 50)]
    return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in batches[0]}


def firsts(answers: list[dict[str, Any]]) -> tuple[list[int], list[float]]:
    """The most probable classes of pictures, and their probabilities."""
    guesses = [answer["top"][0] for answer in answers]
    return [guess["class_id"] for guess in guesses], [guess["probability"] for guess in guesses]


def test_evaluation_prediction_and_the_exported_network_give_the_same_answers(
    exported: Exported, loaded: Any, of_crops: Predictor, tmp_path: Path
) -> None:
    """About 300 crops as a dataset has them: the class, and its probability, by every way."""
    glyphs = exported.run.glyphs
    info, arrays = checkpoints.read(RunLayout(exported.run.train_dir), "last")
    model, form = variables.restore_model(info, arrays), variables.form_of(info)
    _, evaluated = evaluate_shards(model, [exported.run.shard], num_records=300, batch_size=64, form=form, ks=(1,))
    paths = [str(tmp_path / f"{number:03}.png") for number in range(300)]
    for path, pixels in zip(paths, glyphs, strict=True):
        Path(path).write_bytes(png(pixels))
    predicted = list(predict(PredictConfig(train_dir=exported.run.train_dir, images=tuple(paths), raw_image=True)))
    of_export = Predictor.exported(exported.export_dir, raw_image=True).predict(paths)

    of_files = in_parts(loaded.signatures["serving_default"], [png(pixels) for pixels in glyphs])
    seen = [of_crops.see(Request("", pixels)) for pixels in glyphs]
    levels = of_crops.images([one.pixels for one in seen if isinstance(one, Seen)]).astype(np.float32)
    of_levels = in_parts(loaded.signatures["levels"], levels)
    of_others = without_tensorflow(exported.path, levels, tmp_path)

    ways = {
        "predict": firsts(predicted),
        "Predictor.exported": firsts(of_export),
        "files": (of_files["ids"][:, 0], of_files["probabilities"][:, 0]),
        "levels": (of_levels["ids"][:, 0], of_levels["probabilities"][:, 0]),
        **{name: (of_all.argmax(axis=1), of_all.max(axis=1)) for name, of_all in of_others.items()},
    }
    for way, (ids, probabilities) in ways.items():
        np.testing.assert_array_equal(ids, evaluated.predicted, err_msg=way)
        np.testing.assert_allclose(probabilities, evaluated.probabilities, atol=NEAR, rtol=0, err_msg=way)
    of_all = in_parts(loaded.signatures["all_classes"], levels)["probabilities"]
    np.testing.assert_allclose(of_all, of_crops.probabilities(levels.astype(np.uint8)), atol=NEAR, rtol=0)
    assert len(set(evaluated.predicted.tolist())) > 1
    for answer in (of_files, of_levels):
        assert answer["ids"].shape == answer["classes"].shape == answer["probabilities"].shape == (300, 3)
        names = np.array([name.encode() for name in CHARSET.characters], object)
        np.testing.assert_array_equal(answer["classes"], names[answer["ids"]])


def test_the_search_for_the_ink_is_that_of_a_run(exported: Exported) -> None:
    page = np.full((300, 200), 230, np.uint8)
    page[100:160, 50:100] = np.minimum(page[100:160, 50:100], 40 + np.abs(np.arange(60)[:, None] - 30) * 7)
    of_run, of_export = Predictor(exported.run.train_dir), Predictor.exported(exported.path)
    (expected,), (found,) = of_run.predict([page]), of_export.predict([page])
    assert found["box"] == expected["box"]
    assert [guess["character"] for guess in found["top"]] == [guess["character"] for guess in expected["top"]]
    names = ("step", "classes", "digest", "form", "on_paper")
    assert [getattr(of_export, name) for name in names] == [getattr(of_run, name) for name in names]
    assert of_export.checkpoint == exported.path
    assert of_run.digest == exported.result["digest"]


REFUSE = """
import importlib.abc, json, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED:
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
"""
RUNTIMES = """
REFUSED = {"tfos_job", "tensorflow", "keras"}
REFUSE
import numpy as np, onnxruntime
from ai_edge_litert.interpreter import Interpreter

folder, images, output = sys.argv[1:]
images = np.load(images)
tflite = Interpreter(f"{folder}/model.tflite").get_signature_runner()(images=images)["probabilities"]
session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
np.savez(output, tflite=tflite, onnx=session.run(["probabilities"], {"images": images})[0])
""".replace("REFUSE\n", REFUSE)
ALONE = """
REFUSED = {"tfos_job"}
REFUSE
import tensorflow as tf

network = tf.saved_model.load(sys.argv[1])
answer = network.signatures["serving_default"](images=tf.constant([open(path, "rb").read() for path in sys.argv[2:]]))
print(json.dumps([[name.decode() for name in names] for names in answer["classes"].numpy()]))
""".replace("REFUSE\n", REFUSE)


def without_tensorflow(folder: str, levels: np.ndarray, tmp_path: Path) -> dict[str, np.ndarray]:
    """The probabilities by both runtimes, in a process that has neither TensorFlow nor this package."""
    np.save(tmp_path / "levels.npy", levels)
    command = [sys.executable, "-c", RUNTIMES, folder, str(tmp_path / "levels.npy"), str(tmp_path / "found.npz")]
    subprocess.run(command, check=True, cwd=tmp_path)
    with np.load(tmp_path / "found.npz") as found:
        return dict(found)


def test_it_answers_in_a_process_that_has_not_this_package(
    exported: Exported, of_crops: Predictor, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, pixels in zip(paths, exported.run.glyphs, strict=False):
        path.write_bytes(png(pixels))
    command = [sys.executable, "-c", ALONE, exported.path, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    classes = json.loads(done.stdout)
    expected = of_crops.predict(paths)
    assert classes == [[guess["character"] for guess in answer["top"]] for answer in expected]


def test_files_for_other_runtimes_name_no_other_file_and_no_operation_of_somebody_elses(exported: Exported) -> None:
    """Both formats can: TFLite by custom operations, ONNX by domains, functions and weights in other files."""
    model = onnx.load(f"{exported.path}/model.onnx", load_external_data=False)
    domains = {node.domain for node in model.graph.node} | {opset.domain for opset in model.opset_import}
    assert domains <= {"", "ai.onnx.ml"}  # of the standard
    assert not model.functions
    assert {weights.data_location for weights in model.graph.initializer} == {onnx.TensorProto.DEFAULT}
    lite = schema_py_generated.Model.GetRootAs((Path(exported.path) / "model.tflite").read_bytes())
    codes = [lite.OperatorCodes(number) for number in range(lite.OperatorCodesLength())]
    assert codes
    assert [code.CustomCode() for code in codes if code.CustomCode() is not None] == []
    assert schema_py_generated.BuiltinOperator.CUSTOM not in {code.BuiltinCode() for code in codes}


def test_nothing_here_opens_the_files_for_other_runtimes(exported: Exported, tmp_path: Path) -> None:
    """Those of somebody else are compared with their digests, which he has computed, too."""
    shutil.copytree(exported.path, tmp_path / "1")
    document = exported.document
    for name in ("model.tflite", "model.onnx"):
        (tmp_path / "1" / name).write_bytes(b"garbage")
        document["files"][name] = {"size_bytes": 7, "sha256": hashlib.sha256(b"garbage").hexdigest()}
    storage.write_json(str(tmp_path / "1" / "export.json"), document | {"document_sha256": document_digest(document)})
    assert Predictor.exported(tmp_path).digest == exported.result["digest"]


def test_photographs_in_colour_are_reduced_and_normalized_within_the_graph(tmp_path: Path) -> None:
    model = {"model_name": "chinese_rec", "num_classes": 2, "image_size": 16, "num_channels": 3, "keep_prob": 1.0}
    run = small_runs.make(
        tmp_path,
        3,
        model=model,
        characters=["cat", "big dog"],
        dataset_name="images",
        normalization={"kind": "per_image"},
        dataset_digest="0" * 64,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, 90, 70, 3), np.uint8)
    files = []
    for image_format, image in zip(("PNG", "JPEG", "GIF"), pixels, strict=True):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, image_format)
        files.append(stream.getvalue())
    grey = png(pixels[0, :, :, 0])
    export(ExportConfig(train_dir=run.train_dir, export_dir=str(tmp_path / "e")))
    predictor = Predictor(run.train_dir)
    expected = predictor.predict([*files, grey], top_k=2)
    answer = tf.saved_model.load(str(tmp_path / "e" / "1")).signatures["serving_default"](tf.constant([*files, grey]))
    assert answer["classes"].shape == (4, 2)  # of --top_k 5
    for number, line in enumerate(expected):
        names = [name.decode() for name in answer["classes"][number].numpy()]
        assert names == [guess["character"] for guess in line["top"]]
        probabilities = [guess["probability"] for guess in line["top"]]
        np.testing.assert_allclose(answer["probabilities"][number], probabilities, atol=NEAR, rtol=0)
    document = exports.read(str(tmp_path / "e" / "1")).document
    assert document["ink"] is None  # the dataset is not the one that the run was trained on
    assert document["formats"]["saved_model"]["parity"]["records"] == "random pixels"
    assert exports.read(str(tmp_path / "e" / "1")).form == Form(image_size=16, num_channels=3, antialias=True)


def test_a_dataset_that_is_damaged_by_now_keeps_no_network_from_answering(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = small_runs.make(tmp_path, 3)
    flip_byte(Path(run.shard))
    taken = TrainingPictures(RunLayout(run.train_dir), checkpoints.read(RunLayout(run.train_dir), "last")[0])
    assert (taken.images(Form(image_size=16)).shape, taken.ink) == ((0, 16, 16, 1), None)
    assert "The pictures of the training cannot be read" in caplog.text


def test_what_it_takes_and_gives_is_what_export_json_says(exported: Exported, loaded: Any) -> None:
    document = exported.document
    described = document["formats"]["saved_model"]["signatures"]
    assert sorted(described) == sorted(loaded.signatures) == ["all_classes", "levels", "serving_default"]
    for name, signature in loaded.signatures.items():
        taken, given = signature.structured_input_signature[1], signature.structured_outputs
        for specs, tensors in ((taken, described[name]["inputs"]), (given, described[name]["outputs"])):
            found = {key: (spec.dtype.name, [side or -1 for side in spec.shape]) for key, spec in specs.items()}
            assert found == {key: (one["dtype"], one["shape"]) for key, one in tensors.items()}
            assert all(one["unit"] for one in tensors.values())
        assert not any(key.endswith("_bytes") for key in given)
    assert (document["classes"], document["step"], document["version"]) == (list(CHARSET.characters), STEP, 1)
    assert document["metrics"] == {
        "training": {"loss": 1.5, "top_1": 0.5},
        "evaluations": {"test": {"top_1": 0.25}},
    }
    assert list(document["formats"]) == ["onnx", "saved_model", "tflite"]
    for of_format in document["formats"].values():
        proof = of_format["parity"]
        assert (proof["records"], proof["num_records"], proof["num_same_top_1"]) == ("training pictures", 300, 300)
        assert proof["largest_difference"] < NEAR
    assert described["all_classes"] == {key: document["formats"]["onnx"][key] for key in ("inputs", "outputs")}
    found = InkStatistics.from_json(document["ink"])
    assert found == Predictor.exported(exported.path).ink == measure(exported.run.glyphs)
    assert found is not None
    assert 1 < found.stroke_width * found.side < 6
    served = RunSource("run", exported.run.train_dir, "last").load(exported.run.train_dir)
    assert served.draw.keywords == {"like": found}  # type: ignore[attr-defined]
    assert exported.result == {
        "already_exported": False,
        "digest": document["digest"],
        "path": exported.path,
        "step": STEP,
        "version": 1,
    }


# --- TensorFlow Serving's warm-up ------------------------------------------------------------------------------------

# As in its .proto files: the message's fields with number, type, and whether it is a list.
MESSAGES = {
    "ModelSpec": [("name", 1, "string", False), ("signature_name", 3, "string", False)],
    "Entry": [("key", 1, "string", False), ("value", 2, "bytes", False)],
    "PredictRequest": [("model_spec", 1, "ModelSpec", False), ("inputs", 2, "Entry", True)],
    "PredictLog": [("request", 1, "PredictRequest", False)],
    "PredictionLog": [("predict_log", 6, "PredictLog", False)],
}


def prediction_log() -> Any:
    """The class of the message, made by protobuf itself."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package="serving", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, type_name, is_list in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = kind.LABEL_REPEATED if is_list else kind.LABEL_OPTIONAL
            if type_name in MESSAGES:
                field.type, field.type_name = kind.TYPE_MESSAGE, f".serving.{type_name}"
            else:
                field.type = kind.TYPE_STRING if type_name == "string" else kind.TYPE_BYTES
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("serving.PredictionLog"))


def test_warm_up_requests_are_those_of_tensorflow_serving_and_have_answers(exported: Exported, loaded: Any) -> None:
    kind, asked = prediction_log(), []
    with (Path(exported.path) / warm_up.FILE).open("rb") as stream:
        for _, data in tfrecord.read_records(stream, "warm-up"):
            message = kind.FromString(data)
            assert message.SerializeToString() == data  # no field that is not declared above
            request = message.predict_log.request
            (entry,) = request.inputs
            tensor = tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry.value))
            answer = loaded.signatures[request.model_spec.signature_name](**{entry.key: tf.constant(tensor)})
            assert answer["probabilities"].shape[0] == 1
            asked.append(request.model_spec.signature_name)
    assert asked == ["serving_default", "levels", "all_classes"]


def test_a_picture_with_alpha_is_refused_in_words(exported: Exported, loaded: Any) -> None:
    data = png(np.zeros((20, 20, 4), np.uint8))
    signature = loaded.signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="a PNG with transparent parts: put it on white paper"):
        signature(images=tf.constant([png(exported.run.glyphs[0]), data]))


# --- versions --------------------------------------------------------------------------------------------------------


class Exporting(Exception):
    """That TensorFlow would be loaded for."""


def begin() -> None:
    raise Exporting


def test_a_second_export_does_nothing_unless_the_newest_version_is_another(exported: Exported, tmp_path: Path) -> None:
    export_dir = str(tmp_path / "e")
    shutil.copytree(exported.export_dir, export_dir)
    config = ExportConfig(train_dir=exported.run.train_dir, export_dir=export_dir, top_k=3, keep_versions=1)
    before = sorted(tmp_path.rglob("*"))
    again = export(config, load_tensorflow=begin)
    assert again == exported.result | {"path": f"{export_dir}/1", "already_exported": True}
    assert sorted(tmp_path.rglob("*")) == before
    for change in ({"top_k": 2}, {"train_dir": small_runs.make(tmp_path, 20, characters="一丁七万丈三下").train_dir}):
        with pytest.raises(Exporting):
            export(dataclasses.replace(config, **change), load_tensorflow=begin)

    flip_byte(tmp_path / "e" / "1" / "saved_model.pb")
    mended = export(config)
    assert (mended["version"], mended["already_exported"]) == (2, False)
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["2"]
    assert Predictor.exported(export_dir).digest == mended["digest"] == exported.result["digest"]

    layout = ExportLayout(export_dir)
    exports.publish(layout, f"{exported.path}/variables", {"digest": "of another model", "top_k": 3})
    with pytest.raises(Exporting):  # an older version is the same, but nobody serves it
        export(config, load_tensorflow=begin)
    with Lease(layout.lock, "somebody"), pytest.raises(BusyError, match="held by somebody"):
        export(config)


def test_an_export_made_without_the_dataset_gets_its_ink_when_that_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And one that has it keeps it when the dataset is gone."""
    run, away = small_runs.make(tmp_path, 20), tmp_path / "away"
    config = ExportConfig(train_dir=run.train_dir, export_dir=str(tmp_path / "e"))
    Path(run.dataset_dir).rename(away)
    assert export(config)["version"] == 1
    assert "nothing is known of their ink" in caplog.text
    with caplog.at_level("WARNING"):
        ExportSource("default", config.export_dir).load(f"{config.export_dir}/1")
    assert "e/1 knows nothing of the ink of its training pictures" in caplog.text
    assert export(config, load_tensorflow=begin)["already_exported"]
    away.rename(run.dataset_dir)
    assert export(config)["version"] == 2
    inks = [exports.read(f"{config.export_dir}/{version}").ink for version in (1, 2)]
    assert (inks[0], inks[1]) == (None, measure(run.glyphs).to_json())  # type: ignore[union-attr]
    Path(run.dataset_dir).rename(away)
    assert export(config, load_tensorflow=begin)["version"] == 2


def test_versions_are_removed_where_there_is_nothing_to_export(exported: Exported, tmp_path: Path) -> None:
    layout, files = ExportLayout(str(tmp_path / "e")), tmp_path / "files"
    shutil.copytree(exported.path, files, ignore=shutil.ignore_patterns("export.json"))
    storage.make_dirs(layout.root)
    for _ in range(4):
        exports.publish(layout, str(files), exported.document)
    config = ExportConfig(train_dir=exported.run.train_dir, export_dir=layout.root, top_k=3, keep_versions=2)
    again = export(config, load_tensorflow=begin)
    assert (again["version"], again["already_exported"]) == (4, True)
    assert exports.versions(layout) == [4, 3]


def publish(export: ExportLayout, folder: Path, guard: Any = lambda: None) -> exports.ExportInfo:
    return exports.publish(export, str(folder), {"digest": "d", "step": 1}, guard)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a version."""
    folder = tmp_path / "files"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"numbers")
    return folder


def test_versions_grow_appear_whole_and_are_kept(tmp_path: Path, folder: Path) -> None:
    layout = ExportLayout(str(tmp_path / "e"))
    with pytest.raises(MissingInputError, match=r"no exported network there"):
        exports.resolve(layout.root)
    storage.make_dirs(layout.root)
    (tmp_path / "e" / "7").mkdir()  # somebody else's
    (tmp_path / "e" / "_building-gone").mkdir()
    seen = []
    first = publish(layout, folder, lambda: seen.append(exports.versions(layout)))
    assert (first.version, seen, exports.versions(layout)) == (8, [[]], [8])
    exports.prove(exports.read(first.path))
    with pytest.raises(BusyError):
        publish(layout, folder, lambda: (_ for _ in ()).throw(BusyError("lost")))
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["7", "8"]
    assert [publish(layout, folder).version for _ in range(3)] == [9, 10, 11]
    assert exports.resolve(layout.root) == layout.version(11)
    assert exports.retain(layout, 2) == [9, 8]
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["10", "11", "7"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: flip_byte(path / "variables" / "data"), "variables/data does not have the SHA-256"),
        (lambda path: (path / "variables" / "data").unlink(), "variables/data is missing"),
        (lambda path: (path / "saved_model.pb").write_bytes(b"graphs"), "saved_model.pb has 6 bytes, expected 5"),
        (lambda path: (path / "export.json").write_text("{"), "export.json is not JSON"),
        (lambda path: (path / "export.json").write_text("[]"), "export.json is not of format version 1"),
        (
            lambda path: (path / "export.json").write_text(
                (path / "export.json").read_text().replace('"step": 1', '"step": 2')
            ),
            "export.json does not have its own digest",
        ),
    ],
    ids=["another byte", "no file", "another size", "no JSON", "another version", "changed"],
)
def test_a_damaged_version_is_refused(tmp_path: Path, folder: Path, damage: Any, words: str) -> None:
    layout = ExportLayout(str(tmp_path / "e"))
    storage.make_dirs(layout.root)
    damage(Path(publish(layout, folder).path))
    with pytest.raises(BadDataError, match=words):
        Predictor.exported(layout.root)


@pytest.mark.parametrize("name", ["../../.bashrc", "/etc/passwd", "variables/../../x"])
def test_no_file_outside_of_a_version_belongs_to_it(tmp_path: Path, folder: Path, name: str) -> None:
    """Copies are written under the names in `export.json`, and what its digest proves anybody can compute."""
    layout = ExportLayout(str(tmp_path / "e"))
    storage.make_dirs(layout.root)
    path = publish(layout, folder).path
    document = storage.read_json(f"{path}/export.json")
    document["files"][name] = document["files"]["saved_model.pb"]
    storage.write_json(f"{path}/export.json", document | {"document_sha256": document_digest(document)})
    with pytest.raises(BadDataError, match="a file outside of the version"):
        exports.read(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files": []}, "'files' is list"),
        ({"files": {"a": 1}}, "file a: is no object"),
        ({"files": {"a": {"size_bytes": "1", "sha256": ""}}}, "file a: 'size_bytes' is str"),
        ({"version": None}, "'version' is NoneType"),
        ({"digest": 3}, "'digest' is int"),
    ],
    ids=range(5),
)
def test_a_document_of_other_types_is_damage(tmp_path: Path, folder: Path, change: Any, words: str) -> None:
    layout = ExportLayout(str(tmp_path / "e"))
    storage.make_dirs(layout.root)
    path = publish(layout, folder).path
    document = storage.read_json(f"{path}/export.json") | change
    storage.write_json(f"{path}/export.json", document | {"document_sha256": document_digest(document)})
    with pytest.raises(BadDataError, match=f"export.json: {words}"):
        exports.read(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": 3}, "'classes' is int"),
        ({"classes": [1]}, "a class has a name that is no text"),
        ({"preprocessing": []}, "'preprocessing' is list"),
        ({"preprocessing": {"image_size": "16"}}, "'image_size' is str"),
        ({"ink": 1}, "'ink' is int"),
        ({"top_k": None}, "'top_k' is NoneType"),
    ],
    ids=range(6),
)
def test_an_answer_needs_what_the_document_should_have(
    exported: Exported, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    shutil.copytree(exported.path, tmp_path / "1")
    document = exported.document | change
    storage.write_json(str(tmp_path / "1" / "export.json"), document | {"document_sha256": document_digest(document)})
    with pytest.raises(BadDataError, match=f"export.json: {words}"):
        Predictor.exported(tmp_path)


def test_it_is_loaded_from_any_file_system_after_its_copy_is_proved(exported: Exported) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(exported.path, "/exports/1", recursive=True)
    try:
        predictor = Predictor.exported("memory://exports", raw_image=True)
        assert predictor.predict(exported.run.glyphs[:9]) == Predictor.exported(exported.path, raw_image=True).predict(
            exported.run.glyphs[:9]
        )
        memory.pipe("/exports/1/saved_model.pb", b"x" * len(memory.cat("/exports/1/saved_model.pb")))
        with pytest.raises(BadDataError, match=r"saved_model\.pb does not have the SHA-256"):
            Predictor.exported("memory://exports")
    finally:
        memory.rm("/exports", recursive=True)


def test_a_network_that_a_format_cannot_hold_is_named(tmp_path: Path) -> None:
    images = keras.Input((4, 4, 1))
    odd = keras.layers.Lambda(tf.math.digamma)(images)  # TFLite's runtime alone has no such kernel
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(odd)))
    with pytest.raises(JobError, match=r"the network cannot be converted to tflite: .*[^.]\. Leave tflite out of"):
        portable.write(str(tmp_path), "tflite", model, 2, Form(image_size=4))


def test_a_converter_that_says_nothing_is_quoted_by_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(keras.Model, "export", export)
    images = keras.Input((4, 4, 1))
    model = keras.Model(images, keras.layers.Flatten()(images))
    with pytest.raises(JobError, match="cannot be converted to onnx: AssertionError"):
        portable.write(str(tmp_path), "onnx", model, 16, Form(image_size=4))


def test_formats_without_their_packages_are_refused_before_anything_is_done(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExportConfig(train_dir=exported.run.train_dir, export_dir="hdfs://nn/e", formats="onnx")
    assert config.all_formats == ("saved_model", "onnx")
    commands.check(config)
    with pytest.raises(SettingsError, match=r"^--formats onnx: their packages are extras, which do not travel"):
        commands.check_submitted(config)
    monkeypatch.setitem(commands._PACKAGES, "onnx", ("json", "no_such_package"))
    with pytest.raises(SettingsError, match=r"no_such_package is not installed\. pip install 'tfos_job\[onnx\]'"):
        commands.check(config)
    with pytest.raises(FlagError, match=r"Did you mean onnx\?"):
        ExportConfig(train_dir="t", export_dir="e", formats="saved_model,onx")


@pytest.mark.parametrize("wrong", ["all_classes", "levels", "serving_default"])
def test_the_proof_is_that_of_each_signature(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    expected = np.array([[0.2, 0.5, 0.3]] * 70, np.float32)
    images = np.zeros((70, 4, 4, 1), np.uint8)

    def signature(name: str, ids: list[int]) -> Any:
        values = expected[0, ids] * (0.9 if name == wrong else 1)
        return lambda images: {
            "ids": tf.constant([ids] * len(images), tf.int64),
            "probabilities": tf.constant([values] * len(images)),
        }

    signatures = {
        "all_classes": signature("all_classes", [0, 1, 2]),
        "levels": signature("levels", [1, 2]),
        "serving_default": signature("serving_default", [1, 2]),
    }
    loaded = SimpleNamespace(signatures=signatures)
    monkeypatch.setattr(saved_model, "_loaded", lambda *_: loaded)
    with pytest.raises(JobError, match="does not answer as the checkpoint"):
        saved_model.prove("", images, expected)
    wrong = ""
    signatures |= {name: signature(name, [0, 1, 2] if name == "all_classes" else [1, 2]) for name in signatures}
    assert saved_model.prove("", images, expected)["largest_difference"] == 0


def test_a_network_that_answers_otherwise_is_not_published() -> None:
    expected = np.float32([[0.9, 0.1], [0.50001, 0.49999]])
    near = parity("onnx", expected, np.float32([[0.9, 0.1], [0.49999, 0.50001]]))
    assert (near["num_records"], near["num_same_top_1"]) == (2, 1)  # a tie
    for other in ([[0.899, 0.101], [0.5, 0.5]], [[np.nan, 0.1], [0.5, 0.5]]):
        with pytest.raises(JobError, match="onnx does not answer as the checkpoint: of 2 records"):
            parity("onnx", expected, np.float32(other))
