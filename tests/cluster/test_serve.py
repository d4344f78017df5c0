"""`tfos-job serve` as its callers see it: one start for all."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.command import Command, StartCommand
from tests.unit import small_runs
from tests.unit.small_checkpoints import META, model_arrays
from tfos_job import Predictor
from tfos_job.config import ExportConfig
from tfos_job.layout import RunLayout
from tfos_job.local_jobs.export import export
from tfos_job.networks import registry
from tfos_job.run import checkpoints

PNG, JSON = "image/png", "application/json"
KEY = "a key that only this test has"
NUM_CLIENTS = 8


def cross() -> bytes:
    pixels = np.full((60, 60), 255, np.uint8)
    pixels[28:32, 6:-6] = 40
    pixels[6:-6, 28:32] = 80
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def publish_another(train_dir: str) -> None:
    """The run's next checkpoint, with other weights."""
    info, _ = checkpoints.read(RunLayout(train_dir), "last")
    arrays = model_arrays(registry.build(**info.model, seed=2))
    document = {key: value for key, value in info.document.items() if key in META}
    checkpoints.publish(RunLayout(train_dir), small_runs.STEP + 1, arrays, document)


class Client:
    """A caller with one connection that is kept alive."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("localhost", port)
        self.headers: dict[str, str] = {}

    def ask(self, path: str, body: bytes | str | None = None, kind: str = PNG) -> tuple[int, Any]:
        headers = {"X-API-Key": KEY} | ({"Content-Type": kind} if body is not None else {})
        self._connection.request("GET" if body is None else "POST", path, body, headers)
        answer = self._connection.getresponse()
        self.headers, data = dict(answer.getheaders()), answer.read()
        return answer.status, json.loads(data) if self.headers["Content-Type"] == JSON else data

    def close(self) -> None:
        self._connection.close()


def part(data: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + data + b"\r\n"


def check_bodies(client: Client, expected: dict[str, Any]) -> None:
    """Every way of asking gives the answer of a `Predictor`."""
    picture = cross()
    b64 = {"b64": base64.b64encode(picture).decode()}
    drawing = {"strokes": [[[1, 5], [9, 5]], [[5, 1], [5, 9]]], "size": [10, 10]}
    asked: list[tuple[bytes | str, str]] = [
        (picture, PNG),
        (part(picture) + part(picture) + b"--x--\r\n", "multipart/form-data; boundary=x"),
        (json.dumps({"images": [b64, b64]}), JSON),
    ]
    for body, kind in asked:
        status, answer = client.ask("/predict", body, kind)
        assert status == 200
        for prediction in answer["predictions"]:
            assert prediction["box"] == expected["box"]
            assert [guess["character"] for guess in prediction["top"]] == [g["character"] for g in expected["top"]]
            found = [guess["probability"] for guess in prediction["top"]]
            assert found == pytest.approx([guess["probability"] for guess in expected["top"]], abs=1e-5)
    status, answer = client.ask("/predict?seen=1&top_k=5", json.dumps(drawing), JSON)
    (prediction,) = answer["predictions"]
    assert (status, len(prediction["top"])) == (200, 5)
    assert Image.open(io.BytesIO(base64.b64decode(prediction["seen"]))).size == (16, 16)
    assert client.ask("/predict", b"no picture")[0] == 400


def ask_until_closed(port: int, seen: Counter[int]) -> list[int]:
    """The statuses of requests, one after the other, until the server ends the connection."""
    statuses = []
    with contextlib.closing(Client(port)) as client:
        while client.headers.get("Connection") != "close":
            statuses.append(client.ask("/predict", cross())[0])
            seen[statuses[-1]] += 1
    return statuses


def test_it_answers_refuses_reloads_and_ends_without_losing_a_request(start: StartCommand, tmp_path: Path) -> None:
    run = small_runs.make(tmp_path, num_records=20)
    exported = ExportConfig(train_dir=run.train_dir, export_dir=str(tmp_path / "exports"))
    export(exported)
    (tmp_path / "keys").write_text(KEY)
    flags: tuple[object, ...] = ("--model", f"new={exported.export_dir}", "--model", f"run={run.train_dir}")
    flags += ("--host", "localhost", "--port", 0, "--api_key_file", tmp_path / "keys", "--access_log", tmp_path / "log")
    flags += ("--max_queue", 2, "--max_images", 2, "--max_batch_size", 1)
    flags += ("--reload_seconds", 0.1, "--request_timeout", 600, "--stop_timeout", 600)
    command: Command = start("serve", *flags)
    command.wait_until(lambda: "\n" in command.stdout)
    ready = command.result()
    predictor = Predictor(run.train_dir)
    known = {"digest": predictor.digest, "step": small_runs.STEP}  # the same of both
    assert ready["models"] == [{"model": "new", **known}, {"model": "run", **known}]
    port = int(ready["url"].strip("/").rpartition(":")[2])

    client = Client(port)
    assert client.ask("/readyz")[0] == 200
    check_bodies(client, predictor.predict([cross()])[0])

    seen: Counter[int] = Counter()
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        clients = [pool.submit(ask_until_closed, port, seen) for _ in range(NUM_CLIENTS)]
        command.wait_until(lambda: seen[429] and seen[200] > 20)
        publish_another(run.train_dir)
        assert export(exported)["version"] == 2
        command.wait_until(lambda: client.ask("/v1/models/new/versions/2")[0] == 200)
        client.close()
        count = seen[200]
        command.wait_until(lambda: seen[200] > count + 20)
        command.send_signal(signal.SIGTERM)
        statuses = [each.result() for each in clients]  # each request had an answer, or this raises
    assert command.wait() == 143
    assert command.stderr.splitlines()[-1].endswith("stopped by SIGTERM: no request is left without an answer")
    assert {status for each in statuses for status in each} <= {200, 429, 503}
    lines = [json.loads(line) for line in (tmp_path / "log").read_text("utf-8").splitlines()]
    asked = Counter(line["status"] for line in lines if line["path"] == "/predict")
    assert asked[200] == seen[200] + 4
    steps = [line["step"] for line in lines if line["status"] == 200 and line["path"] == "/predict"]
    assert set(steps) == {small_runs.STEP, small_runs.STEP + 1}
    assert KEY not in command.stderr + (tmp_path / "log").read_text("utf-8")
