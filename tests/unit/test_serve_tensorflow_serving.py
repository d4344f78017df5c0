"""The shapes of TensorFlow Serving's REST."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.serving import SIDE, Served, png

PICTURES = [{"b64": base64.b64encode(png(grey)).decode()} for grey in (100, 250)]
LEVELS = [[[[grey]] * SIDE] * SIDE for grey in (100, 250.5)]
TOP = {
    "classes": [["丁", "一"], ["万", "一"]],
    "ids": [[1, 0], [3, 0]],
    "probabilities": [[pytest.approx(0.9), 0.0]] * 2,
}
ROWS = [{key: value[row] for key, value in TOP.items()} for row in (0, 1)]
EVERY = [[0.0, pytest.approx(0.9), 0.0, 0.0], [0.0, 0.0, 0.0, pytest.approx(0.9)]]
URL = "/v1/models/default:predict"


@pytest.fixture
def served() -> Served:
    return Served().begin()


def ask(served: Served, value: Any, url: str = URL) -> tuple[int, Any]:
    response = served.client.post(url, json=value)
    return response.status_code, response.json


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": PICTURES}, {"predictions": ROWS}),
        ({"instances": [{"images": each} for each in PICTURES]}, {"predictions": ROWS}),
        ({"inputs": PICTURES}, {"outputs": TOP}),
        ({"inputs": {"images": PICTURES}, "signature_name": "serving_default"}, {"outputs": TOP}),
        ({"instances": LEVELS, "signature_name": "levels"}, {"predictions": ROWS}),
        ({"instances": LEVELS, "signature_name": "all_classes"}, {"predictions": EVERY}),
        ({"inputs": LEVELS, "signature_name": "all_classes"}, {"outputs": EVERY}),
    ],
)
def test_rows_and_columns_of_every_signature(served: Served, body: Any, answer: Any) -> None:
    assert ask(served, body) == (200, answer)
    assert ask(served, body, "/v1/models/default/versions/700:predict") == (200, answer)
    assert all(served.network.raw)


def test_a_picture_is_put_on_paper_and_upright_as_everywhere(served: Served) -> None:
    """TensorFlow Serving itself would refuse the one, and not turn the other."""
    clear = Image.new("LA", (4, 4), (0, 0))
    upside_down = Image.new("L", (4, 4), 0)
    upside_down.putpixel((3, 3), 100)
    exif = Image.Exif()
    exif[0x0112] = 3
    files = []
    for image, options in ((clear, {}), (upside_down, {"exif": exif})):
        stream = io.BytesIO()
        image.save(stream, "PNG", **options)
        files.append({"b64": base64.b64encode(stream.getvalue()).decode()})
    status, answer = ask(served, {"instances": files})
    assert (status, [row["classes"][0] for row in answer["predictions"]]) == (200, ["万", "丁"])
    assert ask(served, {"instances": [*files, {"b64": "AAAA"}]})[0] == 400
    text = served.client.get("/metrics").text
    for line in ('outcome="answered"} 2.0', 'outcome="unreadable"} 1.0'):
        assert f'pictures_total{{model="default",{line}\n' in text


def test_status_and_metadata_name_version_and_signatures(served: Served) -> None:
    for url in ("/v1/models/default", "/v1/models/default/versions/700"):
        (status,) = served.client.get(url).json["model_version_status"]  # type: ignore[index]
        assert (status["version"], status["state"], status["status"]["error_code"]) == ("700", "AVAILABLE", "OK")
        metadata = served.client.get(f"{url}/metadata").json
        assert metadata is not None
        assert metadata["model_spec"] == {"name": "default", "signature_name": "", "version": "700"}
        signatures = metadata["metadata"]["signature_def"]["signature_def"]
        assert list(signatures) == ["serving_default", "levels", "all_classes"]
        shape = signatures["levels"]["inputs"]["images"]["tensor_shape"]["dim"]
        assert [dim["size"] for dim in shape] == ["-1", "8", "8", "1"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ([], 400, "not an object"),
        ({}, 400, "one of them"),
        ({"instances": PICTURES, "inputs": PICTURES}, 400, "one of them"),
        ({"instances": []}, 400, "not a list of pictures"),
        ({"instances": {"b64": ""}}, 400, "not a list of pictures"),
        ({"instances": ["/etc/passwd"]}, 400, "images[0]"),
        ({"instances": [{"b64": "bm9uZQ=="}]}, 400, "images[0]: not a PNG, JPEG or GIF"),
        ({"instances": PICTURES, "signature_name": "other"}, 400, "signature_name"),
        ({"instances": [[[1]]], "signature_name": "levels"}, 400, "images[0] is not a list of numbers [8, 8, 1]"),
        ({"instances": [[[1], [1, 2]]], "signature_name": "levels"}, 400, "not a list of numbers"),
        ({"instances": [[[[1e39]] * SIDE] * SIDE], "signature_name": "levels"}, 400, "too large"),
        ({"instances": [[[[10**400]] + [[1]] * (SIDE - 1)] * SIDE], "signature_name": "levels"}, 400, "too large"),
        ({"instances": [[[["1"]] * SIDE] * SIDE], "signature_name": "levels"}, 400, "not a list of numbers"),
        ({"instances": [[[[True]] * SIDE] * SIDE], "signature_name": "levels"}, 400, "not a list of numbers"),
        ({"instances": PICTURES[:1] * 5}, 413, "5 pictures"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_what_is_wrong_is_said(served: Served, body: Any, status: int, words: str) -> None:
    found, answer = ask(served, body)
    assert (found, list(answer)) == (status, ["error"])
    assert words in answer["error"]
    assert served.model.batcher.num_waiting == 0


def test_a_long_text_among_levels_is_no_array(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "asarray", None)  # both would have room for it in each of their places
    monkeypatch.setattr(np, "array", None)
    levels = [[["1" * 10_000], *[["1"]] * (SIDE - 1)], *[[["1"]] * SIDE] * (SIDE - 1)]
    status, answer = ask(served, {"instances": [levels], "signature_name": "levels"})
    assert (status, answer) == (400, {"error": "images[0] is not a list of numbers [8, 8, 1]"})


def test_a_full_queue_refuses_before_it_decodes(served: Served) -> None:
    with served.model.batcher.reserved(8):
        assert ask(served, {"instances": PICTURES})[0] == 429
    assert not served.network.asked
    assert ask(served, {"instances": PICTURES})[0] == 200


def test_other_models_and_versions_are_not_there(served: Served) -> None:
    body = {"instances": PICTURES}
    assert ask(served, body, "/v1/models/other:predict")[0] == 404
    assert ask(served, body, "/v1/models/default/versions/7:predict")[0] == 404
    assert ask(served, body, "/v1/models/default:classify")[0] in (404, 405)
    assert served.client.get("/v1/models/other/metadata").status_code == 404
    served.lifecycle.drain()
    assert ask(served, body)[0] == 503
