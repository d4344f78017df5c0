"""The routes, by Flask's client, over a network that is none."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import random
import struct
import threading
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.serving import Held, Network, Served, png
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.host.results import ReaderGone
from tfos_job.inference.pictures import Request
from tfos_job.serve import access_log, asked, server
from tfos_job.serve.access_log import AccessLog
from tfos_job.serve.bodies import Bodies
from tfos_job.serve.channel import BEGAN_S
from tfos_job.serve.refusals import TooLarge

STROKES = [[[1, 1], [9, 9]], [[9, 1], [1, 9]]]
KEY = "0123456789abcdef"


@pytest.fixture
def served() -> Served:
    return Served().begin()


def characters(answer: Any) -> list[str]:
    return [prediction["top"][0]["character"] for prediction in answer["predictions"]]


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def test_a_picture_by_every_kind_of_body(served: Served) -> None:
    whole = {
        "model": "default",
        "digest": "d" * 64,
        "step": 7,
        "predictions": [
            {
                "image": "picture",
                "inverted": False,
                "step": 7,
                "top": [
                    {"character": "丁", "class_id": 1, "probability": 0.9},
                    {"character": "一", "class_id": 0, "probability": 0.0},
                ],
            }
        ],
    }
    assert served.predict(png(100), "image/png", "?top_k=2") == (200, whole)
    assert served.predict(png(100), "application/octet-stream", "?top_k=2") == (200, whole)
    form = {"image": [(io.BytesIO(png(100)), "a.png"), (io.BytesIO(png(0)), "b")], "other": (io.BytesIO(png(200)), "c")}
    status, answer = served.predict(form, "multipart/form-data")
    assert (status, characters(answer)) == (200, ["丁", "一", "万"])
    assert [prediction["image"] for prediction in answer["predictions"]] == ["a.png", "b", "c"]
    status, answer = served.ask({"images": [b64(png(0)), b64(png(250))]})
    assert (status, characters(answer)) == (200, ["一", "万"])
    assert not any(served.network.raw)
    served.predict(png(100), query="?raw_image=1")
    assert served.network.raw[-1]


def test_strokes_become_the_one_raster_of_all(served: Served) -> None:
    status, answer = served.ask({"strokes": STROKES, "size": [10, 10]}, "?seen=1")
    assert (status, answer["predictions"][0]["image"]) == (200, "drawings[0]")
    drawn = np.asarray(served.network.asked[-1].source)
    assert drawn.dtype == np.uint8
    assert served.network.raw[-1]  # it is as training saw it
    seen = Image.open(io.BytesIO(base64.b64decode(answer["predictions"][0]["seen"])))
    assert (seen.size, seen.mode) == ((8, 8), "L")
    status, answer = served.ask({"images": [b64(png(100))], "drawings": [{"strokes": STROKES, "size": [10, 10]}] * 2})
    assert [prediction["image"] for prediction in answer["predictions"]] == ["images[0]", "drawings[0]", "drawings[1]"]


def test_one_of_many_that_cannot_be_read_is_told_in_its_place(served: Served) -> None:
    status, answer = served.ask({"images": [b64(b"none"), b64(png(100)), b64(png(1, width=200, height=200))]})
    assert status == 200
    bad, good, large = answer["predictions"]
    assert bad == {"image": "images[0]", "error": "not a PNG, JPEG or GIF. Give a PNG, JPEG or GIF"}
    assert good["top"][0]["character"] == "丁"
    assert large["error"] == "a picture of 200 × 200 pixels is larger than 10000 pixels"
    assert served.predict(b"none")[0] == 400
    assert served.predict(png(1, width=200, height=200)) == (413, {"error": large["error"]})
    status, answer = served.predict(png(*[255] * 20))
    blank = {"image": "picture", "inverted": False, "step": 7, "top": [], "doubtful": "blank"}
    assert answer["predictions"] == [blank]
    assert served.model.batcher.num_waiting == 0


@pytest.mark.parametrize(
    ("image_format", "at", "part"),
    [("PNG", 33, b"\0\0\0\0IDAT\x35\xaf\x06\x1e"), ("JPEG", 2, b"\xff\xfe\0\2"), ("JPEG", 2, b"\xff")],
    ids=["chunks", "comments", "filling"],
)
def test_a_file_of_too_many_parts_is_refused_before_a_decoder_sees_it(image_format: str, at: int, part: bytes) -> None:
    stream = io.BytesIO()
    Image.new("L", (5, 4)).save(stream, image_format)
    data, limits = stream.getvalue(), Served().limits
    limits.count_pixels(data[:at] + part * 9_000 + data[at:])
    with pytest.raises(TooLarge, match="more than 10000 parts"):
        limits.count_pixels(data[:at] + part * 10_000 + data[at:])


def test_of_a_png_with_two_heads_the_larger_one_counts() -> None:
    small, large = png(1), png(1, width=200, height=200)
    limits = dataclasses.replace(Served().limits, max_pixels=10_000)
    limits.count_pixels(small)
    limits.count_pixels(small[:20])  # cut off in its head: for the decoder to name
    with pytest.raises(TooLarge, match="a picture of 200 × 200 pixels is larger than 10000 pixels"):
        limits.count_pixels(small[:33] + large[8:33] + small[33:])


@pytest.mark.parametrize("side", [9_000, 30_000])
def test_a_picture_larger_than_any_that_is_read_is_too_large_as_well(served: Served, side: int) -> None:
    """Beyond the limit of decoders, and beyond Pillow's own."""
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = png(0)[:8] + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + png(0)[33:]
    status, answer = served.predict(data)
    assert (status, answer["error"][:27]) == (413, "a picture that is too large")


def test_a_json_of_too_many_values_is_refused_before_it_is_read() -> None:
    with Bodies().share() as share:
        assert asked.json_object(b'{"images": [' + b"[]," * 100 + b"[]]}", share)["images"] == [[]] * 101
        with pytest.raises(TooLarge, match="more than 2000000 values"):
            asked.json_object(b'{"images": [' + b"[]," * 1_000_000 + b"[]]}", share)


@pytest.mark.parametrize("path", ["/predict", "/v1/models/default:predict"])
def test_a_body_that_is_compressed_is_not_read(served: Served, path: str) -> None:
    for encoding, status in (("gzip", 415), ("br, gzip", 415), ("Identity", 400)):
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        response = served.client.post(path, data=gzip.compress(b"{}"), headers=headers)
        assert response.status_code == status
        assert ("a body in Content-Encoding" in response.text) == (status == 415)


@pytest.mark.parametrize("path", ["/predict", "/v1/models/default:predict"])
def test_bodies_for_which_there_is_no_memory_are_refused(served: Served, path: str) -> None:
    """Before they are read; and a JSON whose values take more than its bytes, before they are made."""
    key = "images" if path == "/predict" else "instances"
    bodies, body = served.limits.bodies, json.dumps({key: [b64(png(100))] * 4})
    for size, status in ((512 << 20, 429), ((512 << 20) - 2 * len(body), 429), ((512 << 20) - 10 * len(body), 200)):
        with bodies.share() as others:
            others.take(size)
            response = served.client.post(path, data=body, content_type="application/json")
            assert (response.status_code, response.headers.get("Retry-After")) == (
                status,
                "1" if status == 429 else None,
            )
    with bodies.share() as own:
        own.take(600 << 20)  # one that is alone
    assert bodies.num_bytes == 0


WRONG: dict[str, tuple[Any, str | None, str, int, str]] = {
    "no body": (b"", "image/png", "", 400, "an empty file"),
    "no type": (b"x", None, "", 415, "no Content-Type"),
    "curl's type": (b"x", "application/x-www-form-urlencoded", "", 415, "image/*"),
    "no file": ({"image": "/etc/passwd"}, "multipart/form-data", "", 400, "no file in the form"),
    "no form": (b"x", "multipart/form-data", "", 400, "no file in the form"),
    "no JSON": (b"{", "application/json", "", 400, "no JSON"),
    "not UTF-8": (b"\xff", "application/json", "", 400, "no JSON"),
    "deep": (b"[" * 15_000, "application/json", "", 400, "no JSON"),
    "no object": (b"[]", "application/json", "", 400, "not an object"),
    "no number": (b'{"strokes": [[[NaN, 1]]], "size": [9, 9]}', "application/json", "", 400, "NaN"),
    "nothing": (b"{}", "application/json", "", 400, "no picture"),
    "a URL": (b'{"images": ["http://10.0.0.1/a.png"]}', "application/json", "", 400, '{"b64": "…"}'),
    "a path": (b'{"images": [{"path": "/etc/passwd"}]}', "application/json", "", 400, '{"b64": "…"}'),
    "a file": (b'{"images": [{"b64": "file:///etc/passwd"}]}', "application/json", "", 400, "not in base64"),
    "unknown": (b'{"urls": []}', "application/json", "", 400, "unknown: 'urls'"),
    "no size": (b'{"strokes": [[[1, 2]]]}', "application/json", "", 400, "size"),
    "no stroke": (b'{"strokes": [], "size": [9, 9]}', "application/json", "", 400, "there is no stroke"),
    "odd strokes": (b'{"strokes": [[1, [2]]], "size": [9, 9]}', "application/json", "", 400, "strokes[0]"),
    "five": (json.dumps({"images": [b64(png(1))] * 5}), "application/json", "", 413, "5 pictures"),
    "large": (b"x" * 20_001, "image/png", "", 413, "too large"),
    "top_k": (png(1), "image/png", "?top_k=0", 400, "top_k='0'"),
    "long top_k": (png(1), "image/png", f"?top_k={'9' * 5000}", 400, "top_k="),
    "switch": (png(1), "image/png", "?raw_image=maybe", 400, "raw_image='maybe'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(served: Served, name: str) -> None:
    data, content_type, query, expected, words = WRONG[name]
    status, answer = served.predict(data, content_type, query)
    assert (status, list(answer)) == (expected, ["error"])
    assert words in answer["error"]
    assert served.predict(png(100))[0] == 200


def test_other_paths_and_methods_are_refused_in_json(served: Served) -> None:
    for method, path, status in (("GET", "/predict", 405), ("GET", "/none", 404), ("GET", "/static/../keys.py", 404)):
        response = served.client.open(path, method=method)
        assert (response.status_code, list(response.json or {})) == (status, ["error"])
    assert "POST" in served.client.get("/predict").headers["Allow"]


def test_no_bytes_make_it_fail(served: Served) -> None:
    """Bodies of every kind with bytes changed, cut and doubled: a refusal or an answer, never a fault of the server."""
    draw = random.Random(1)
    seeds: list[tuple[str, bytes]] = [
        ("image/png", png(100)),
        ("application/json", json.dumps({"strokes": STROKES, "size": [10, 10]}).encode()),
        ("application/json", json.dumps({"images": [b64(png(9))], "drawings": []}).encode()),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="\xff"\r\n\r\n' + png(1) + b"\r\n--x--\r\n",
        ),
    ]
    statuses = set()
    for _ in range(400):
        content_type, seed = draw.choice(seeds)
        data = bytearray(seed)
        for _ in range(draw.randrange(5)):
            at = draw.randrange(len(data))
            match draw.randrange(4):
                case 0:
                    data[at] = draw.randrange(256)
                case 1:
                    del data[at : at + draw.randrange(20)]
                case 2:
                    data[at:at] = draw.choice([b'"', b"[", b"{}", b"1e999", b"-", b"\\ud800", b"\r\n--x"])
                case _:
                    data[at:at] = data[at : at + 30]
            data = data or bytearray(b"x")
        if draw.random() < 0.1:
            others = ["image/png", "application/json", "multipart/form-data", "multipart/x; boundary=", "é"]
            content_type = draw.choice(others)
        status, answer = served.predict(bytes(data), content_type)
        assert answer is not None
        assert "Traceback" not in str(answer)
        statuses.add(status)
    assert statuses <= {200, 400, 413, 415}
    assert {200, 400} <= statuses
    assert served.model.batcher.num_waiting == 0


def test_a_fault_is_told_without_what_is_within(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.network.fault = ValueError("/secret/weights")
    status, answer = served.predict(png(100))
    assert (status, "secret" in answer["error"], "secret" in caplog.text) == (500, False, True)
    served.network.fault = None
    served.network.see = None  # type: ignore[assignment, method-assign]
    assert served.predict(png(100)) == (500, {"error": "a fault of the server; its log has more"})


def test_it_is_ready_when_it_has_answered_and_until_it_drains() -> None:
    served = Served()
    get = served.client.get
    assert (get("/healthz").status_code, get("/readyz").status_code) == (200, 503)
    assert served.predict(png(100)) == (503, {"error": "the server is starting"})
    served.model.warm_up()
    served.begin()
    assert get("/readyz").json["models"] == [{"model": "default", "digest": "d" * 64, "step": 7}]  # type: ignore[index]
    began_s = time.monotonic()
    served.lifecycle.drain()
    assert (get("/healthz").status_code, get("/readyz").status_code) == (200, 503)
    refused = served.client.post("/predict", data=png(100), content_type="image/png")
    assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (503, True)
    before = served.client.post(
        "/predict", data=png(100), content_type="image/png", environ_overrides={BEGAN_S: began_s}
    )
    assert before.status_code == 200  # its first byte came before the signal


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_no_health(served: Served) -> None:
    served.network.fault = SystemExit()
    assert served.predict(png(100))[0] == 500
    served.model.batcher._thread.join()
    for path in ("/healthz", "/readyz"):
        assert served.client.get(path).status_code == 503
    assert served.predict(png(100))[0] == 500


def test_a_full_queue_refuses_before_it_decodes() -> None:
    network = Held()
    served = Served(network=network, max_queue=4, max_batch_size=1).begin()
    two = {"images": [b64(png(100))] * 2}
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(served.predict, png(100))
        network.began.acquire()
        others = [pool.submit(served.ask, two) for _ in range(2)]
        while served.model.batcher.num_waiting < 4 or len(network.asked) < 5:
            pass
        response = served.client.post("/predict", data=png(100), content_type="image/png")
        assert (response.status_code, int(response.headers["Retry-After"])) == (429, 1)
        assert len(network.asked) == 5
        network.go.set()
        assert [done.result()[0] for done in (first, *others)] == [200] * 3
    assert served.predict(png(100))[0] == 200


def test_no_answer_in_time_is_a_refusal() -> None:
    network = Held()
    served = Served(network=network, timeout_s=0.01).begin()
    response = served.client.post("/predict", data=png(100), content_type="image/png")
    assert (response.status_code, "Retry-After" in response.headers) == (503, True)
    network.go.set()


class Slow(Network):
    """Looks at a picture when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.looks, self.go = threading.Event(), threading.Event()

    def see(self, request: Request, *, raw_image: bool = False) -> Any:
        self.looks.set()
        assert self.go.wait(600)
        return super().see(request, raw_image=raw_image)


def test_whoever_looks_at_a_large_picture_holds_up_nobody() -> None:
    network = Slow()
    served = Served(network=network, max_pixels=1_000_000).begin()
    listener = server.listen("127.0.0.1", 0)
    url = server.url_of(listener)
    limits = server.ServerLimits(max_connections=8, max_body_bytes=20_000, request_s=600.0)
    running = server.Server(served.app, listener, limits)

    def ask(path: str, data: bytes | None = None) -> int:
        request = urllib.request.Request(url + path, data, {"Content-Type": "image/png"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return answer.status

    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(ask, "predict", png(100, width=300, height=300))
        assert network.looks.wait(600)
        assert ask("healthz") == 200
        assert served.model.batcher.num_waiting == 1  # it has its place
        network.go.set()
        assert large.result() == 200
    assert running.stop(600) == 0


def test_no_picture_is_decoded_after_the_time_of_its_request() -> None:
    served = Served(timeout_s=-1.0).begin()
    assert served.predict(png(100))[0] == 503
    assert not served.network.asked


def test_metrics_and_access_log_have_every_request(served: Served) -> None:
    served.predict({"image": [(io.BytesIO(png(100)), "a"), (io.BytesIO(b"no"), "b")]}, "multipart/form-data")
    served.predict(png(*[255] * 20))
    served.predict(b"", "text/plain", "?secret=1")
    served.client.get("/none")
    text = served.client.get("/metrics").text
    for line in (
        'requests_total{route="/predict",status="200"} 2.0',
        'requests_total{route="/predict",status="415"} 1.0',
        'requests_total{route="none",status="404"} 1.0',
        'pictures_total{model="default",outcome="answered"} 1.0',
        'pictures_total{model="default",outcome="doubtful"} 1.0',
        'pictures_total{model="default",outcome="unreadable"} 1.0',
        'batch_pictures_count{model="default"} 1.0',
        'queue_seconds_count{model="default"} 1.0',
        'network_seconds_count{model="default"} 1.0',
        "ready 1.0",
    ):
        assert f"tfos_job_serve_{line}\n" in text
    first, _, third, fourth, _ = served.lines
    assert first == first | {"method": "POST", "path": "/predict", "status": 200, "pictures": 2, "model": "default"}
    assert (third["path"], third["status"]) == ("/predict", 415)
    assert (fourth["path"], fourth["client"]) == ("/none", "127.0.0.1")


def test_the_access_log_ends_without_the_server(caplog: pytest.LogCaptureFixture) -> None:
    def gone(lines: str) -> None:
        raise ReaderGone

    log = AccessLog(gone)
    log.add(began_s=0.0, path="/healthz")
    log._thread.join()
    log.add(began_s=0.0, path="/readyz")
    log.close(600)
    assert caplog.messages == ["The access log ends here: its reader is gone"]


def test_a_reader_of_the_access_log_that_pauses_holds_up_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "_MOST_LINES", 2)
    writing, reads = threading.Semaphore(0), threading.Semaphore(0)
    lines: list[str] = []

    def write(some: str) -> None:
        writing.release()
        reads.acquire()
        lines.extend(json.loads(line)["path"] for line in some.splitlines())

    log = AccessLog(write)
    log.add(began_s=0.0, path="/1")
    writing.acquire()
    for number in range(2, 6):
        log.add(began_s=0.0, path=f"/{number}")
    reads.release()
    writing.acquire()
    log.add(began_s=0.0, path="/6")
    log.close(0.0)
    reads.release(2)
    log.close(600)
    assert lines == ["/1", "/2", "/3", "/6"]
    assert caplog.messages == ["The access log has a gap of 2 lines: nobody read it"]


def test_every_answer_has_the_headers_of_a_strict_page(served: Served) -> None:
    for path in ("/healthz", "/none", "/metrics"):
        headers = served.client.get(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_key_is_asked_of_everyone_but_probes(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    # As some editors write it: their mark is no part of a key.
    keys.write_text(f"{KEY}\r\n# of the web page\n\nanother-key-of-some-length\n", "utf-8-sig")
    served = Served(keys=keys).begin()

    def status(path: str = "/metrics", **headers: str) -> int:
        return served.client.get(path, headers=headers).status_code

    assert (status("/healthz"), status("/readyz")) == (200, 200)
    refused = served.client.post("/predict", data=png(100), content_type="image/png")
    assert (refused.status_code, refused.headers["WWW-Authenticate"][:6]) == (401, "Basic ")
    assert [status(path) for path in ("/", "/static/page.js", "/none")] == [401] * 3
    for authorization in (f"Bearer {KEY}", f"Basic {base64.b64encode(f'me:{KEY}'.encode()).decode()}"):
        assert status(Authorization=authorization) == 200
    assert status(**{"X-API-Key": "another-key-of-some-length"}) == 200
    wrong = (f"Bearer {KEY}x", "Bearer", f"Bearer {KEY[:-1]}", "Basic !", f"Digest {KEY}", "Bearer é")
    assert [status(Authorization=authorization) for authorization in wrong] == [401] * 6
    assert status(**{"X-API-Key": ""}) == 401
    assert KEY not in json.dumps(served.lines)


@pytest.mark.parametrize(("text", "words"), [("", "no key"), ("# none\n", "no key"), ("short\n", "fewer than 16")])
def test_a_file_of_keys_must_hold_some(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(BadDataError, match=words):
        Served(keys=tmp_path / "keys")
    with pytest.raises(MissingInputError):
        Served(keys=tmp_path / "none")
