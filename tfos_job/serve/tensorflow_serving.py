"""TensorFlow Serving's REST, for callers that speak it: the shapes of its requests and answers.

The signatures are those of an export (docs/formats.md), also for a checkpoint that was never exported. Pictures are
taken as they are, as the exported network takes them: nothing looks for ink.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flask import Flask, Response, g, request

from tfos_job.inference.answer import Answer, NoAnswer
from tfos_job.serve.asked import Asked, Options, decoded, json_object
from tfos_job.serve.bodies import Share, is_light
from tfos_job.serve.hub import aside
from tfos_job.serve.lifecycle import Lifecycle
from tfos_job.serve.limits import Limits
from tfos_job.serve.model import Model
from tfos_job.serve.models import Models, Unknown
from tfos_job.serve.refusals import BadRequest, TooLarge, WrongType
from tfos_job.serve.responses import as_json

_ENCODED, _LEVELS, _ALL_CLASSES = "serving_default", "levels", "all_classes"  # of inference/graph.py
_INPUT, _CLASSES, _IDS, _PROBABILITIES = "images", "classes", "ids", "probabilities"
_INSTANCES, _INPUTS, _SIGNATURE = "instances", "inputs", "signature_name"


def add_routes(app: Flask, models: Models, lifecycle: Lifecycle, limits: Limits) -> None:
    """Adds its routes to an application, whose `g.began_s` says when a request began."""

    def predict(name: str, version: int | None = None) -> Response:
        lifecycle.require(g.began_s)
        with limits.bodies.share() as share, models.used(name) as model:
            _require_version(model, version)
            until_s = model.until_s(g.began_s)
            asked = aside(lambda: _read(limits, share), until_s, unless=is_light(request))
            g.facts = {"model": name, "step": model.loaded.network.step, "pictures": len(asked.values)}
            rows = model.rows(lambda: _pictures(model, asked), len(asked.values), g.began_s)
            return aside(lambda: as_json(_answer(model, asked, rows)), until_s)

    def status(name: str, version: int | None = None) -> Response:
        with models.used(name) as model:
            _require_version(model, version)
            state = {"version": str(model.loaded.version), "state": "AVAILABLE"}
            return as_json({"model_version_status": [{**state, "status": {"error_code": "OK", "error_message": ""}}]})

    def metadata(name: str, version: int | None = None) -> Response:
        with models.used(name) as model:
            _require_version(model, version)
            return as_json(_metadata(model))

    for place in ("/v1/models/<name>", "/v1/models/<name>/versions/<int:version>"):
        which = "version" if "version>" in place else "newest"
        app.add_url_rule(f"{place}:predict", f"tfs_predict_{which}", predict, methods=["POST"])
        app.add_url_rule(place, f"tfs_status_{which}", status)
        app.add_url_rule(f"{place}/metadata", f"tfs_metadata_{which}", metadata)


class _Body:
    """A request: its signature, and its values, in rows or in columns."""

    def __init__(self, signature: str, values: Sequence[Any], *, is_by_row: bool) -> None:
        self.signature = signature
        self.values = values
        self.is_by_row = is_by_row


def _read(limits: Limits, share: Share) -> _Body:
    """The body of a request; `share` takes the memory for it.

    Raises:
      BadRequest: it is of no such shape.
      Full: there is no memory for it now.
      TooLarge: it has more pictures than are taken.
      WrongType: it is no JSON, or compressed.
    """
    if request.mimetype not in ("application/json", "", "application/x-www-form-urlencoded"):  # curl's, which TFS takes
        raise WrongType("a body that is not JSON. Send application/json")
    share.take_request(request)
    body = json_object(request.get_data(cache=False), share)
    keys = [key for key in (_INSTANCES, _INPUTS) if key in body]
    if len(keys) != 1:
        raise BadRequest('expected "instances": […] or "inputs": […], one of them')
    signature = body.get(_SIGNATURE, _ENCODED)
    if signature not in (_ENCODED, _LEVELS, _ALL_CLASSES):
        raise BadRequest(f'expected "signature_name" of {_ENCODED}, {_LEVELS} or {_ALL_CLASSES}')
    is_by_row = keys == [_INSTANCES]
    values = body[keys[0]]
    if not is_by_row:
        values = _unwrapped(values)
    if not isinstance(values, list) or not values:
        raise BadRequest(f'"{keys[0]}" is not a list of pictures')
    if len(values) > limits.max_images:
        raise TooLarge(f"{len(values)} pictures in one request are more than {limits.max_images}")
    return _Body(signature, [_unwrapped(value) for value in values] if is_by_row else values, is_by_row=is_by_row)


def _unwrapped(value: Any) -> Any:
    """`{"images": x}` is `x`: there is one input, whose name may be left out."""
    return value[_INPUT] if isinstance(value, dict) and list(value) == [_INPUT] else value


def _require_version(model: Model, version: int | None) -> None:
    if version is not None and version != model.loaded.version:
        raise Unknown(f"no version {version} of {model.name}. There is {model.loaded.version}")


def _pictures(model: Model, body: _Body) -> list[np.ndarray]:
    take = _encoded if body.signature == _ENCODED else _levels
    return [take(model, value, f"{_INPUT}[{at}]") for at, value in enumerate(body.values)]


def _answer(model: Model, body: _Body, rows: np.ndarray) -> dict[str, Any]:
    columns: dict[str, list[Any]]
    if body.signature == _ALL_CLASSES:
        columns = {_PROBABILITIES: rows.tolist()}
    else:
        tops = model.loaded.network.tops(rows, model.loaded.top_k)
        columns = {
            _CLASSES: [[guess.character for guess in top] for top in tops],
            _IDS: [[guess.class_id for guess in top] for top in tops],
            _PROBABILITIES: [[guess.probability for guess in top] for top in tops],
        }
    is_one = len(columns) == 1  # whose name is left out
    if not body.is_by_row:
        return {"outputs": columns[_PROBABILITIES] if is_one else columns}
    if is_one:
        return {"predictions": columns[_PROBABILITIES]}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _encoded(model: Model, value: Any, place: str) -> np.ndarray:
    """The picture of a file in base64."""
    asked = Asked(place, decoded(value, place))
    seen = model.see(asked, Options(raw_image=True), model.until_s(g.began_s), is_alone=True)
    if isinstance(seen, NoAnswer):
        model.saw("unreadable")
        raise BadRequest(f"{place}: {seen.to_json()['error']}")
    assert not isinstance(seen, Answer)  # of pictures that are looked at for ink alone
    pixels: np.ndarray = seen.pixels
    return pixels


def _levels(model: Model, value: Any, place: str) -> np.ndarray:
    """An image of grey levels or RGB."""
    shape = model.loaded.network.form.shape
    if not _has_shape(value, shape):
        raise BadRequest(f"{place} is not a list of numbers [{', '.join(map(str, shape))}]")
    try:
        with np.errstate(over="ignore"):  # it is looked at below
            image = np.array(value, np.float32)
    except OverflowError:
        image = np.array(np.inf)
    if not np.isfinite(image).all():
        raise BadRequest(f"{place} has a number that is too large")
    return image


def _has_shape(value: Any, shape: Sequence[int]) -> bool:
    """True for lists of numbers. Of texts numpy would make an array with room for the longest one in each place."""
    if not shape:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, list) and len(value) == shape[0] and all(_has_shape(each, shape[1:]) for each in value)


def _metadata(model: Model) -> dict[str, Any]:
    form, k = model.loaded.network.form, model.loaded.top_k
    levels, files = _tensor("DT_FLOAT", *form.shape), _tensor("DT_STRING")
    top: dict[str, Any] = {
        _CLASSES: _tensor("DT_STRING", k),
        _IDS: _tensor("DT_INT64", k),
        _PROBABILITIES: _tensor("DT_FLOAT", k),
    }
    every = {_PROBABILITIES: _tensor("DT_FLOAT", len(model.loaded.network.classes))}
    signatures = {_ENCODED: (files, top), _LEVELS: (levels, top), _ALL_CLASSES: (levels, every)}
    found = {
        name: {"inputs": {_INPUT: given}, "outputs": outputs, "method_name": "tensorflow/serving/predict"}
        for name, (given, outputs) in signatures.items()
    }
    spec = {"name": model.name, "signature_name": "", "version": str(model.loaded.version)}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": found}}}


def _tensor(dtype: str, *sizes: int) -> dict[str, Any]:
    """A tensor of any number of rows."""
    dims = [{"size": str(size), "name": ""} for size in (-1, *sizes)]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": ""}
