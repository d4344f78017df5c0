"""What a SavedModel may be before it is loaded: an export of this package, which computes and does nothing else.

A SavedModel is a program of TensorFlow's. Loading one restores variables by functions that it may bring itself, makes
tables, reads assets and runs initializers; calling one runs its graph, which may read and write files or call Python.
So `saved_model.pb` is read as data first, and refused unless each object is of the few kinds that
`graph.ExportedNetwork` has, and each operation is one of `graph_operations.COMPUTING`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import DecodeError
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_RESOURCE, DT_VARIANT
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.core.protobuf.saved_object_graph_pb2 import SavedObject

from tfos_job.errors import BadDataError
from tfos_job.inference.graph import OBJECTS
from tfos_job.inference.graph_operations import COMPUTING, OUTSIDE, SAVER

FILE = "saved_model.pb"
MOST_BYTES = 1 << 30
"""Of `saved_model.pb`: it holds no weights. Those of InceptionV3's graph are 3 MB."""
_KINDS = {"bare_concrete_function", "captured_tensor", "constant", "function", "user_object", "variable"}
_USER_OBJECTS = {"_generic_user_object", "signature_map", "trackable_list_wrapper"}
_CONSTANT = "tf.TrackableConstant"
_MEMBER = re.compile(r"((capture|trace)_)?[0-9]+")  # of a list, or a constant or a trace of a function
_FUNCTION_ATTRIBUTES = {"_construction_context", "_input_shapes"}
_HANDLES = {DT_RESOURCE, DT_VARIANT}


NEXT_STEP = "Every version that `tfos-job export` makes can be loaded: export the run again"


def read(folder: str, place: str, next_step: str = NEXT_STEP) -> bytes:
    """The graph of a SavedModel that can do nothing but compute.

    Args:
      folder: local.
      place: what an error calls it.
      next_step: of the error.

    Returns:
      The bytes of `saved_model.pb` that were looked at: load these, for the file may be another a moment later.

    Raises:
      BadDataError: it is none, or has an object or an operation that no export of this package has.
    """
    path = os.path.join(folder, FILE)
    with open(path, "rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    try:
        if len(data) > MOST_BYTES:
            raise _Odd(f"it has more than {MOST_BYTES} bytes")
        _require_computing(_graph(data))
    except _Odd as odd:
        raise BadDataError(
            f"not loaded, since a graph of another program may do anything: {odd}",
            place=f"{place.rstrip('/')}/{FILE}",
            next_step=next_step,
        ) from odd
    return data


class _Odd(Exception):
    """What no export of this package has."""


def _graph(data: bytes) -> MetaGraphDef:
    try:
        found = SavedModel.FromString(data)
    except DecodeError as error:
        raise _Odd("it is no SavedModel") from error
    if len(found.meta_graphs) != 1:  # else all of the first one is run by a loader for TensorFlow 1
        raise _Odd(f"it has {len(found.meta_graphs)} graphs, expected one")
    graph = found.meta_graphs[0]
    if not graph.object_graph_def.nodes:
        raise _Odd("it has no objects, as one of TensorFlow 1")
    if graph.asset_file_def:
        raise _Odd(f"it has an asset, {graph.asset_file_def[0].filename!r}")
    return graph


def _require_computing(graph: MetaGraphDef) -> None:
    for number, item in enumerate(graph.object_graph_def.nodes):
        _require_known(number, item)
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    if len(functions) != len(graph.graph_def.library.function):
        raise _Odd("it has two functions of one name")
    _require_operations("the graph", graph.graph_def.node, functions, COMPUTING | OUTSIDE)
    called = _called(graph, functions)
    for name, function in functions.items():
        allowed = COMPUTING if name in called else COMPUTING | SAVER
        _require_operations(f"function {name}", function.node_def, functions, allowed)
        # An attribute can make TensorFlow take one function for another (`api_implements`).
        if name not in called and not set(function.attr) <= _FUNCTION_ATTRIBUTES:
            raise _Odd(f"function {name} has the attributes {', '.join(sorted(function.attr))}")


def _require_known(number: int, item: SavedObject) -> None:
    """An object, of which the loader makes one of Python's; it sets members by the names in the file."""
    kind = item.WhichOneof("kind")
    if kind not in _KINDS:
        raise _Odd(f"object {number} is a {kind}")
    if kind == "user_object" and item.user_object.identifier not in _USER_OBJECTS:
        raise _Odd(f"object {number} is a {item.user_object.identifier!r}")
    is_registered = item.registered_name not in ("", _CONSTANT if kind == "constant" else "")
    if item.saveable_objects or item.registered_saver or is_registered:
        raise _Odd(f"object {number} brings its own way to be restored")
    for child in (*item.children, *item.dependencies):
        if child.local_name not in OBJECTS and not _MEMBER.fullmatch(child.local_name):
            raise _Odd(f"object {number} has a member {child.local_name!r}")


def _require_operations(
    where: str, nodes: Iterable[NodeDef], functions: Mapping[str, FunctionDef], allowed: frozenset[str]
) -> None:
    for node in nodes:
        if node.op not in allowed and node.op not in functions:
            raise _Odd(f"{where} has the operation {node.op} ({node.name})")
        for name in ("value", "dtype"):  # a handle in the file would be that of another's memory
            if node.op == "Const" and (node.attr[name].type in _HANDLES or node.attr[name].tensor.dtype in _HANDLES):
                raise _Odd(f"{where} has a constant that is a handle ({node.name})")


def _called(graph: MetaGraphDef, functions: Mapping[str, FunctionDef]) -> set[str]:
    """The functions that loading or a signature can reach."""
    waiting = list(graph.object_graph_def.concrete_functions)
    for item in graph.object_graph_def.nodes:
        waiting += [*item.function.concrete_functions, item.bare_concrete_function.concrete_function_name]
        waiting.append(item.captured_tensor.concrete_function)
    library = graph.graph_def.library
    waiting += [each.gradient_func for each in (*library.gradient, *library.registered_gradients)]
    called: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in called:
            called.add(name)
            for node in functions[name].node_def:
                waiting.append(node.op)
                for value in node.attr.values():
                    waiting += _names(value)
    return called


def _names(value: AttrValue) -> Iterator[str]:
    """Every text of an attribute that may be the name of a function."""
    yield from (text.decode(errors="replace") for text in (value.s, *value.list.s))
    for function in (value.func, *value.list.func):
        yield function.name
        for inner in function.attr.values():
            yield from _names(inner)
