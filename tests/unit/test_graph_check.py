"""A SavedModel is a program: only one that computes, and does nothing else, is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry

from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.formats.form import Form
from tfos_job.inference import graph_check, graph_operations, saved_model
from tfos_job.inference.graph import ExportedNetwork
from tfos_job.inference.predictor import Predictor
from tfos_job.layout import ExportLayout
from tfos_job.run import exports

SIDE = 4
OF_LEVELS = tf.TensorSpec([None, SIDE, SIDE, 1], tf.float32, name="images")


def export_of(folder: Path, layers: Callable[[Any], Any] = lambda images: images) -> Path:
    """A network of two classes with some layers in front, saved as `export` does."""
    images = keras.Input((SIDE, SIDE, 1))
    logits = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(layers(images)))
    ExportedNetwork(keras.Model(images, logits), ["a", "b"], Form(image_size=SIDE), 1).save(str(folder))
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The graph of an export."""
    return (export_of(tmp_path_factory.mktemp("saved")) / graph_check.FILE).read_bytes()


# --- programs of others, which TensorFlow would run ------------------------------------------------------------------


class Network(tf.Module):
    """One with the members and signatures of an export; `also` is run in each answer."""

    def __init__(self, also: Callable[[], Any] = tf.no_op) -> None:
        super().__init__()
        self._also = also

    @tf.function(input_signature=[OF_LEVELS])
    def all_classes(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        also = self._also()
        with tf.control_dependencies([also]):
            return {"probabilities": tf.nn.softmax(tf.reduce_mean(images, axis=(1, 2)))}


class AtLoad(tf.saved_model.experimental.TrackableResource):
    """A table, as it says; what fills it runs as soon as it is loaded."""

    def __init__(self, target: Path) -> None:
        super().__init__()
        self._target = str(target)

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.string, shared_name="table")

    def _initialize(self) -> None:
        tf.io.write_file(self._target, "at load")


class AtRestore(tf.Module):
    """A module that brings the functions that restore it."""

    def __init__(self, target: Path) -> None:
        super().__init__()
        self._target = str(target)

    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {"x": tf.constant(1.0)}

    def _restore_from_tensors(self, restored: dict[str, tf.Tensor]) -> tf.Operation:
        with tf.control_dependencies([tf.io.write_file(self._target, "at restore")]):
            return tf.no_op()


def resource(target: Path) -> Network:
    network = Network()
    network.network_variables = AtLoad(target)
    return network


def restored(target: Path) -> Network:
    network = Network()
    network.network_variables = AtRestore(target)
    return network


def operation(target: Path) -> Network:
    return Network(lambda: tf.io.write_file(str(target), "at call"))


def python(target: Path) -> Network:
    def write() -> tf.Tensor:
        target.write_text("by Python", "utf-8")
        return tf.constant(0)

    return Network(lambda: tf.py_function(write, [], tf.int32))


def saver(target: Path) -> Network:
    return Network(
        lambda: tf.raw_ops.SaveV2(prefix=str(target), tensor_names=["x"], shape_and_slices=[""], tensors=[1])
    )


def printer(target: Path) -> Network:
    return Network(lambda: tf.print("x", output_stream=f"file://{target}"))


@pytest.mark.parametrize(
    ("program", "written", "words"),
    [
        (resource, "at load", r"object \d+ is a resource"),
        (restored, "at restore", r"object \d+ brings its own way to be restored"),
        (operation, "at call", r"function \S+ has the operation WriteFile"),
        (python, "by Python", r"function \S+ has the operation EagerPyFunc"),
        (saver, "", r"function \S+ has the operation SaveV2"),
        (printer, "x\n", r"function \S+ has the operation PrintV2"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_program_of_somebody_else_runs_in_tensorflow_and_not_here(
    tmp_path: Path, program: Callable[[Path], Network], written: str, words: str
) -> None:
    target, folder, layout = tmp_path / "written", tmp_path / "files", ExportLayout(str(tmp_path / "e"))
    network = program(target)
    tf.saved_model.save(network, str(folder), signatures={"all_classes": network.all_classes})
    for path in tmp_path.glob("written*"):  # saving has run it, too
        path.unlink()
    images = tf.zeros((1, SIDE, SIDE, 1))
    tf.saved_model.load(str(folder)).signatures["all_classes"](images=images)
    found = sorted(tmp_path.glob("written*"))
    assert found
    assert not written or found[0].read_text("utf-8") == written
    for leftover in found:
        leftover.unlink()

    storage.make_dirs(layout.root)
    path = exports.publish(layout, str(folder), {"digest": "d", "step": 1}).path  # with right digests of its files
    with pytest.raises(BadDataError, match=words) as caught:
        Predictor.exported(path)
    assert str(caught.value).startswith(f"{path}/saved_model.pb: not loaded")
    assert not list(tmp_path.glob("written*"))


def test_what_is_loaded_is_what_was_looked_at(tmp_path: Path, saved: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of somebody else may become another in between, and other files may lie beside it."""
    folder, target = export_of(tmp_path / "files"), tmp_path / "written"
    network = operation(target)
    tf.saved_model.save(network, str(tmp_path / "other"), signatures={"all_classes": network.all_classes})
    read = graph_check.read

    def read_and_exchange(folder: str, *given: str) -> bytes:
        data = read(folder, *given)
        Path(folder, graph_check.FILE).write_bytes((tmp_path / "other" / graph_check.FILE).read_bytes())
        return data

    monkeypatch.setattr(graph_check, "read", read_and_exchange)
    answer = saved_model._loaded(str(folder), "x").signatures["all_classes"](images=tf.zeros((1, SIDE, SIDE, 1)))
    assert answer["probabilities"].shape == (1, 2)
    assert not target.exists()


# --- the list --------------------------------------------------------------------------------------------------------


def function_with(graph: MetaGraphDef, op: str) -> Any:
    """The first function that has such an operation, and the operation."""
    library = graph.graph_def.library.function
    return next((function, node) for function in library for node in function.node_def if node.op == op)


def call_the_saver(graph: MetaGraphDef) -> None:
    (function, _), (_, call) = function_with(graph, "SaveV2"), function_with(graph, "StatefulPartitionedCall")
    call.attr["f"].func.name = function.signature.name


def call_the_saver_as_an_operation(graph: MetaGraphDef) -> None:
    (function, _), (_, node) = function_with(graph, "SaveV2"), function_with(graph, "Softmax")
    node.op = function.signature.name


def answer_by_the_saver(graph: MetaGraphDef) -> None:
    function, _ = function_with(graph, "MergeV2Checkpoints")
    found = next(item for item in graph.object_graph_def.nodes if item.WhichOneof("kind") == "function")
    found.function.concrete_functions.append(function.signature.name)


def name_the_saver_in_an_attribute(graph: MetaGraphDef) -> None:
    (function, _), (_, node) = function_with(graph, "RestoreV2"), function_with(graph, "Softmax")
    node.attr["_gradient_op_type"].s = function.signature.name.encode()


def take_the_saver_for_another(graph: MetaGraphDef) -> None:
    function, _ = function_with(graph, "SaveV2")
    function.attr["api_implements"].s = b"softmax"


def read_at_import(graph: MetaGraphDef) -> None:
    """TensorFlow computes constants of a shape while it reads a graph; reading a file counts as one."""
    graph.graph_def.library.function.add().node_def.add(op="ReadFile", name="shape")


def take_a_handle(graph: MetaGraphDef) -> None:
    _, node = function_with(graph, "Const")
    node.attr["value"].tensor.dtype = types_pb2.DT_RESOURCE


def take_a_variable_by_name(graph: MetaGraphDef) -> None:
    _, node = function_with(graph, "Softmax")
    node.op = "VarHandleOp"


def hand_out_memory(graph: MetaGraphDef) -> None:
    """Outputs that no kernel writes: what was in the memory of the process before."""
    _, node = function_with(graph, "Softmax")
    node.op = "FakeParam"


def capture_of_the_saver(graph: MetaGraphDef) -> None:
    function, _ = function_with(graph, "SaveV2")
    graph.object_graph_def.nodes[1].captured_tensor.concrete_function = function.signature.name


def have_an_asset(graph: MetaGraphDef) -> None:
    graph.asset_file_def.add(filename="../../../etc/passwd")


def be_an_asset(graph: MetaGraphDef) -> None:
    graph.object_graph_def.nodes[1].asset.asset_file_def_index = 0


def be_an_optimizer(graph: MetaGraphDef) -> None:
    graph.object_graph_def.nodes[0].user_object.identifier = "optimizer"


def be_registered(graph: MetaGraphDef) -> None:
    graph.object_graph_def.nodes[0].registered_name = "Custom.Thing"


def have_a_saver(graph: MetaGraphDef) -> None:
    graph.object_graph_def.nodes[0].registered_saver = "Custom.Saver"


def overwrite_a_method(graph: MetaGraphDef) -> None:
    graph.object_graph_def.nodes[0].children[0].local_name = "_restore_from_tensors"


def be_of_tensorflow_1(graph: MetaGraphDef) -> None:
    graph.ClearField("object_graph_def")


def double_a_function(graph: MetaGraphDef) -> None:
    graph.graph_def.library.function.append(graph.graph_def.library.function[0])


OF_SAVER = f"has the operation ({'|'.join(graph_operations.SAVER)}) "


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (call_the_saver, OF_SAVER),
        (call_the_saver_as_an_operation, OF_SAVER),
        (answer_by_the_saver, OF_SAVER),
        (name_the_saver_in_an_attribute, OF_SAVER),
        (take_the_saver_for_another, "has the attributes .*api_implements"),
        (read_at_import, "ReadFile"),
        (take_a_handle, "a constant that is a handle"),
        (take_a_variable_by_name, "VarHandleOp"),
        (hand_out_memory, "FakeParam"),
        (capture_of_the_saver, OF_SAVER),
        (have_an_asset, "it has an asset"),
        (be_an_asset, "object 1 is a asset"),
        (be_an_optimizer, "object 0 is a 'optimizer'"),
        (be_registered, "object 0 brings its own way"),
        (have_a_saver, "object 0 brings its own way"),
        (overwrite_a_method, "object 0 has a member '_restore_from_tensors'"),
        (be_of_tensorflow_1, "as one of TensorFlow 1"),
        (double_a_function, "two functions of one name"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_an_export_that_was_changed_is_refused(
    tmp_path: Path, saved: bytes, change: Callable[[MetaGraphDef], None], words: str
) -> None:
    found = SavedModel.FromString(saved)
    change(found.meta_graphs[0])
    (tmp_path / graph_check.FILE).write_bytes(found.SerializeToString())
    with pytest.raises(BadDataError, match=words):
        graph_check.read(str(tmp_path), "x")


def test_a_file_that_is_no_export_is_refused(tmp_path: Path, saved: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / graph_check.FILE
    two = SavedModel.FromString(saved)
    two.meta_graphs.append(two.meta_graphs[0])
    for data, words in [
        (b"", "it has 0 graphs"),
        (b"\xff" * 99, "it is no SavedModel"),
        (saved[:-1], "it is no SavedModel"),
        (two.SerializeToString(), "it has 2 graphs"),
    ]:
        file.write_bytes(data)
        with pytest.raises(BadDataError, match=words):
            graph_check.read(str(tmp_path), "x")
    file.write_bytes(saved)
    assert graph_check.read(str(tmp_path), "x") == saved
    monkeypatch.setattr(graph_check, "MOST_BYTES", len(saved) - 1)
    with pytest.raises(BadDataError, match="more than"):
        graph_check.read(str(tmp_path), "x")


def test_the_list_has_operations_of_this_tensorflow_and_none_that_reaches_out() -> None:
    assert [name for name in sorted(graph_operations.COMPUTING) if op_def_registry.get(name) is None] == []
    reaching = "File|PyFunc|Dataset|Reader|Iterator|Save|Restore|Print|Remote|Send|Recv|Abort|ImmutableConst|Debug"
    reaching += "|^Empty$|FakeParam|^Eig$|Lookup|HashTable|Summary|Session|HandleOp"
    assert [name for name in graph_operations.COMPUTING if re.search(reaching, name)] == []


def test_a_network_of_ones_own_that_reads_files_is_told_at_its_export(tmp_path: Path) -> None:
    (tmp_path / "mean").write_bytes(b"0.5")
    names = str(tmp_path / "mean")
    folder = export_of(
        tmp_path / "e",
        keras.layers.Lambda(lambda images: images - tf.strings.to_number(tf.io.read_file(names)), name="minus"),
    )
    with pytest.raises(BadDataError, match=r"has the operation ReadFile .*\. In a network of your own, leave that"):
        saved_model.prove(str(folder), np.zeros((1, SIDE, SIDE, 1), np.uint8), np.zeros((1, 2), np.float32))


def remade(layer: keras.layers.Layer, images: Any) -> Any:
    """By a layer whose gradient computes the layer's values again."""
    with keras.RematScope(mode="full"):
        return layer.__class__.from_config(layer.get_config())(images)


def quantized(layer: keras.layers.Layer, images: Any) -> Any:
    layer.build(images.shape)
    layer.quantize("int8")
    return layer(images)


LAYERS: dict[str, Callable[[Any], Any]] = {
    "a large constant": lambda images: keras.layers.Lambda(
        lambda x: tf.concat([x * tf.constant(np.ones((99, SIDE, SIDE, 1), np.float32))[:1]], 0)
    )(images),
    "recurrent": lambda images: keras.layers.LSTM(3)(keras.layers.Reshape((SIDE, SIDE))(images)),
    "attention": lambda images: keras.layers.MultiHeadAttention(2, 2)(images, images),
    "convolutions": lambda images: keras.layers.Conv2DTranspose(2, 3)(keras.layers.SeparableConv2D(2, 3)(images)),
    "normalizations": lambda images: keras.layers.LayerNormalization()(keras.layers.BatchNormalization()(images)),
    "always random": lambda images: keras.layers.Dropout(0.5)(images, training=True),
    "augmentation": lambda images: keras.layers.RandomRotation(0.1)(keras.layers.Resizing(9, 9)(images)),
    "computed anew": lambda images: remade(keras.layers.Conv2D(2, 2), images),
    "in few bits": lambda images: quantized(keras.layers.Dense(3), images),
    "crossed": lambda images: keras.layers.HashedCrossing(5)(
        tuple(keras.ops.cast(images[:, i, 0], "int32") for i in range(2))
    ),
    "activations": lambda images: keras.ops.gelu(keras.ops.log_softmax(keras.ops.softplus(images))),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's, of quantized weights
@pytest.mark.parametrize("name", LAYERS)
def test_the_export_of_any_network_of_keras_is_loaded(tmp_path: Path, name: str) -> None:
    loaded = saved_model._loaded(str(export_of(tmp_path / "e", LAYERS[name])), "x")
    images = tf.zeros((3, SIDE, SIDE, 1))
    assert loaded.signatures["all_classes"](images=images)["probabilities"].shape == (3, 2)
    assert loaded.signatures["levels"](images=images)["classes"].shape == (3, 1)
