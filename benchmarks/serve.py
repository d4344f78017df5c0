"""Serving: what `tfos-job serve` adds to the bare model, and what it gains over the seeds' way, in one run.

For each network, with the weights that a seed decides:

- `bare`: the predictor's own `probabilities` in a process without HTTP, with 1, 16 and 32 images at a time.
- `serve`: the command in a process of its own, asked by wrk (a program in C) for PNG crops with `raw_image=1`, by one
  client, by 32, and by 64 that pause so that they ask for 70 % of what those 32 got.
- `seed`: what the seeds' demo does: Flask's own server, a thread for each connection, one `predict` a request.
- `litserve`: LitServe with the same model and the same batches, where it is installed.

Reading the PNG is a cost of all servers and not of `bare`; nobody looks for ink. The first three take turns, and
figures are medians of the rounds'.

    python benchmarks/serve.py

Needs wrk (Debian's package). The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import psutil
from PIL import Image

_CLASSES = 3755
_BATCH = 32
_USUAL_BATCH = 16  # what 32 callers come to, half of whom ask again while the others' pictures are computed
_CLIENTS = 32
_PACED_CLIENTS = 64
_LOAD = 0.7  # of the capacity, at which the tail is looked at
_POST = """wrk.method = "POST"
wrk.headers["Content-Type"] = "{kind}"
local file = io.open("{body}", "rb")
wrk.body = file:read("*all")
file:close()
"""
_PACED = """math.randomseed({seed})
function delay() return math.floor(-math.log(1 - math.random()) * {think_ms}) end
"""
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Load:
    """What wrk saw, and what it cost the server.

    Attributes:
      per_s: requests a second that were answered with 2xx.
      p50_ms, p99_ms: latencies.
      cpu_ms: processor time of the server's processes, a request.
      num_failed: other answers, and errors of sockets.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    num_failed: int


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- the model --------------------------------------------------------------------------------------------------------


def publish(folder: Path, network: str) -> None:
    """A run with one checkpoint."""
    from tfos_job.formats.charset import level1
    from tfos_job.layout import RunLayout
    from tfos_job.networks import registry, variables
    from tfos_job.run import checkpoints

    model = {"model_name": network, "num_classes": _CLASSES, "image_size": 64, "keep_prob": 0.8}
    built = registry.build(**model, seed=1)
    arrays = {name: variable.numpy() for name, variable in variables.model_variables(built).items()}
    document = {"model": model, "characters": "".join(level1().characters), "charset_digest": "", "dataset_digest": ""}
    document |= {"input_position": {}, "metrics": {}}
    checkpoints.publish(RunLayout(str(folder)), 1, arrays, document)


def picture() -> bytes:
    """A glyph's crop, as large as handwriting is."""
    draw = np.random.default_rng(0)
    pixels = np.full((64, 60), 255, np.uint8)
    for _ in range(9):
        at, width = draw.integers(2, 50), draw.integers(3, 6)
        strip = draw.integers(0, 160, (56, width), dtype=np.uint8)
        pixels[4:60, at : at + width] = strip
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


class Bare:
    """The network alone, in this process, at 1, 16 and 32 images. It rests while others are measured."""

    def __init__(self, train_dir: Path) -> None:
        from tfos_job import Predictor

        self._predictor = Predictor(train_dir, raw_image=True)
        self._images = {size: np.zeros((size, 64, 64, 1), np.uint8) for size in (1, _USUAL_BATCH, _BATCH)}
        for images in self._images.values():
            for _ in range(3):
                self._predictor.probabilities(images)

    def turn(self, seconds: float) -> dict[str, float]:
        """The median time of a call, and processor time an image."""
        found = {}
        for size, images in self._images.items():
            times, cpu_s, end_s = [], time.process_time(), time.perf_counter() + seconds / len(self._images)
            while time.perf_counter() < end_s or len(times) < 5:
                began_s = time.perf_counter()
                self._predictor.probabilities(images)
                times.append(time.perf_counter() - began_s)
            found[f"ms_{size}"] = 1000 * statistics.median(times)
            found[f"cpu_ms_{size}"] = 1000 * (time.process_time() - cpu_s) / len(times) / size
        found["per_s"] = 1000 * _BATCH / found[f"ms_{_BATCH}"]
        return found


# --- servers ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(command: list[str], log: Path, kind: str = "image/png") -> Iterator[tuple[psutil.Process, str]]:
    """A server, and its address, which it prints in a line of JSON."""
    with log.open("w") as stderr:
        process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        try:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{' '.join(command)} ended:\n{log.read_text()[-2000:]}")
            url = json.loads(line)["url"].rstrip("/")
            wait_for_answer(url, kind)
            yield process, url
        finally:
            for child in process.children(recursive=True):
                child.terminate()
            process.terminate()
            process.wait(60)
            process.stdout.close()


def kind_of(peer: str) -> str:
    """The type of body that a server takes: LitServe's are JSON."""
    return "application/json" if peer == "litserve" else "image/png"


def body_of(kind: str) -> bytes:
    data = picture()
    return data if kind == "image/png" else json.dumps({"b64": base64.b64encode(data).decode()}).encode()


def wait_for_answer(url: str, kind: str) -> None:
    request = urllib.request.Request(f"{url}/predict?raw_image=1", body_of(kind), {"Content-Type": kind})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        with contextlib.suppress(OSError), opener.open(request, timeout=60) as answer:
            answer.read()
            return
        time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


def serve_command(train_dir: Path) -> list[str]:
    words = ["serve", "--train_dir", train_dir, "--port", 0, "--access_log", "/dev/null", "--max_batch_size", _BATCH]
    return [sys.executable, "-m", "tfos_job", *map(str, words)]


def serve_as_the_seed(train_dir: str) -> None:
    """Flask's own server with one prediction a request."""
    import flask
    from werkzeug.serving import make_server

    from tfos_job import Predictor

    predictor = Predictor(train_dir, raw_image=True)
    app = flask.Flask(__name__)

    @app.post("/predict")
    def predict() -> Any:
        return flask.jsonify(predictor.predict([flask.request.get_data()]))

    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(json.dumps({"url": f"http://127.0.0.1:{server.port}"}), flush=True)
    server.serve_forever()


if importlib.util.find_spec("litserve"):  # its processes import this module again, and look for the class here
    import litserve

    class Api(litserve.LitAPI):
        """The same model and batches: a process for HTTP, one for the model."""

        train_dir = ""

        def setup(self, device: str) -> None:
            from tfos_job import Predictor

            self.predictor = Predictor(self.train_dir, raw_image=True)

        def decode_request(self, request):  # LitServe takes an annotation for a type of FastAPI
            from tfos_job.inference.pictures import Request

            return self.predictor.see(Request("picture", base64.b64decode(request["b64"])))

        def batch(self, inputs: Any) -> Any:
            return inputs

        def predict(self, seen: Any) -> Any:
            rows = self.predictor.probabilities_of([one.pixels for one in seen])
            return [one.with_top(top).to_json() for one, top in zip(seen, self.predictor.tops(rows, 3), strict=True)]

        def unbatch(self, output: Any) -> Any:
            return output


def serve_by_litserve(train_dir: str) -> None:
    """LitServe, at a port that it does not tell by itself."""
    api = Api(max_batch_size=_BATCH, batch_timeout=0.002, api_path="/predict")
    api.train_dir = train_dir
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    server.run(host="127.0.0.1", port=port, log_level="error", generate_client_file=False)


# --- load -------------------------------------------------------------------------------------------------------------


def load(
    process: psutil.Process,
    url: str,
    folder: Path,
    *,
    clients: int,
    seconds: float,
    think_ms: float = 0.0,
    kind: str = "image/png",
) -> Load:
    """Asks by wrk; with `think_ms`, each client waits so long on average between its requests."""
    script, body = folder / "post.lua", folder / "body"
    body.write_bytes(body_of(kind))
    paced = _PACED.format(seed=1, think_ms=think_ms) if think_ms else ""
    script.write_text(_POST.format(body=body, kind=kind) + paced)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "30s", "--latency", "-s", str(script)]
    before_s = cpu_s(process)
    done = subprocess.run([*command, f"{url}/predict?raw_image=1"], capture_output=True, text=True, check=True)
    return parse(done.stdout, cpu_s(process) - before_s)


def parse(text: str, cpu_s: float) -> Load:
    """Wrk's report."""
    counted = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m),", text)
    assert counted, text
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    num_refused = int(refused[1]) if refused else 0
    num_answered = int(counted[1]) - num_refused
    return Load(
        per_s=num_answered / (float(counted[2]) * _UNITS_MS[counted[3]] / 1000),
        p50_ms=percentile(text, "50%"),
        p99_ms=percentile(text, "99%"),
        cpu_ms=1000 * cpu_s / max(1, int(counted[1])),
        num_failed=num_refused + sum(map(int, errors.groups())) if errors else num_refused,
    )


def percentile(text: str, name: str) -> float:
    found = re.search(rf"^ +{name} +([\d.]+)(us|ms|s|m) *$", text, re.MULTILINE)
    assert found, text
    return float(found[1]) * _UNITS_MS[found[2]]


def cpu_s(process: psutil.Process) -> float:
    """Processor time of a server and its children."""
    return sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])


# --- all of it --------------------------------------------------------------------------------------------------------


def measure(network: str, folder: Path, seconds: float, rounds: int, has_litserve: bool) -> dict[str, Any]:
    """Bare, `serve` and the seeds' way take turns; LitServe, which never rests, comes after them."""
    train_dir = folder / network
    publish(train_dir, network)
    bare, turns = Bare(train_dir), []
    with running(serve_command(train_dir), folder / "serve.log") as ours, seed_running(train_dir, folder) as seed:
        for process, url in (ours, seed):  # every thread has answered once
            load(process, url, folder, clients=_CLIENTS, seconds=min(2, seconds))
        for number in range(rounds):
            note(f"{network}: round {number + 1}")
            turns.append(turn(bare, ours, seed, folder, seconds))
    result: dict[str, Any] = {name: middle([each[name] for each in turns]) for name in turns[0]}
    if has_litserve:
        note(f"{network}: litserve")
        command = [sys.executable, __file__, "--as", "litserve", "--train_dir", str(train_dir)]
        with running(command, folder / "litserve.log", kind_of("litserve")) as (process, url):
            kind = kind_of("litserve")
            load(process, url, folder, clients=_CLIENTS, seconds=min(2, seconds), kind=kind)
            result["litserve"] = load(process, url, folder, clients=_CLIENTS, seconds=seconds, kind=kind).__dict__
    return {**result, "compared": compared(result), "rounds": turns}


def seed_running(train_dir: Path, folder: Path) -> contextlib.AbstractContextManager[tuple[psutil.Process, str]]:
    command = [sys.executable, __file__, "--as", "seed", "--train_dir", str(train_dir)]
    return running(command, folder / "seed.log")


def turn(
    bare: Bare, ours: tuple[psutil.Process, str], seed: tuple[psutil.Process, str], folder: Path, seconds: float
) -> dict[str, dict[str, float]]:
    """All sides once."""
    found: dict[str, dict[str, float]] = {"bare": bare.turn(seconds)}
    one = load(*ours, folder, clients=1, seconds=-(-seconds // 2))  # wrk takes whole ones
    many = load(*ours, folder, clients=_CLIENTS, seconds=seconds)
    # A client's turn is its pause and its answer, which takes some 1.5 times what a single client's does.
    think_ms = 1000 * _PACED_CLIENTS / (_LOAD * many.per_s) - 1.5 * one.p50_ms
    paced = load(*ours, folder, clients=_PACED_CLIENTS, seconds=seconds, think_ms=think_ms)
    found |= {"one": one.__dict__, "many": many.__dict__, "paced": paced.__dict__}
    return found | {"seed": load(*seed, folder, clients=_CLIENTS, seconds=seconds).__dict__}


def middle(turns: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure; of failures the sum."""
    combine = {"num_failed": sum}
    return {name: combine.get(name, statistics.median)([each[name] for each in turns]) for name in turns[0]}


def compared(result: dict[str, Any]) -> dict[str, float]:
    """What the targets are about."""
    bare, one, many, paced = (result[name] for name in ("bare", "one", "many", "paced"))
    found = {
        "one_added_ms": one["p50_ms"] - bare["ms_1"],
        "many_over_bare": many["per_s"] / bare["per_s"],
        "many_added_cpu_ms": many["cpu_ms"] - bare[f"cpu_ms_{_BATCH}"],
        "many_added_cpu_ms_16": many["cpu_ms"] - bare[f"cpu_ms_{_USUAL_BATCH}"],
        "paced_p99_over_p50": paced["p99_ms"] / paced["p50_ms"],
        "paced_load": paced["per_s"] / many["per_s"],
    }
    for peer in ("seed", "litserve"):
        if result.get(peer, {}).get("per_s"):
            found[f"over_{peer}"] = many["per_s"] / result[peer]["per_s"]
    return {name: round(value, 3) for name, value in found.items()}


def row(network: str, result: dict[str, Any]) -> str:
    """A row of the table in benchmarks/README.md, without date, command and place."""
    bare, one, many, paced, found = (result[name] for name in ("bare", "one", "many", "paced", "compared"))
    tail = f"**{found['paced_p99_over_p50']:.1f}**, at {found['paced_load']:.2f}"
    cells = [
        network,
        f"{one['p50_ms']:.1f}, {bare['ms_1']:.1f} (**{found['one_added_ms']:+.1f}**)",
        f"{many['per_s']:.0f}, {bare['per_s']:.0f} (**{found['many_over_bare']:.2f}**)",
        f"{many['cpu_ms']:.2f}, {bare[f'cpu_ms_{_BATCH}']:.2f} (**{found['many_added_cpu_ms']:+.2f}**; "
        f"{found['many_added_cpu_ms_16']:+.2f} to batch 16)",
        f"{paced['p99_ms']:.0f}, {paced['p50_ms']:.0f} ({tail})",
    ]
    for peer in ("seed", "litserve"):
        has = f"over_{peer}" in found
        cells.append(f"{result[peer]['per_s']:.0f} (**{found[f'over_{peer}']:.1f}**)" if has else "")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", default="chinese_rec,hanzi_net", help="comma-separated names")
    parser.add_argument("--seconds", type=int, default=8, help="of each measurement (default: 8)")
    parser.add_argument("--rounds", type=int, default=4, help="(default: 4)")
    parser.add_argument("--as", dest="peer", choices=("seed", "litserve"), help=argparse.SUPPRESS)
    parser.add_argument("--train_dir", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        {"seed": serve_as_the_seed, "litserve": serve_by_litserve}[arguments.peer](arguments.train_dir)
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not there: `apt-get install wrk`")
    has_litserve = importlib.util.find_spec("litserve") is not None
    results = {}
    with tempfile.TemporaryDirectory(prefix="tfos_job-serve-") as folder:
        for name in arguments.networks.split(","):
            results[name] = measure(name, Path(folder), arguments.seconds, arguments.rounds, has_litserve)
    for name, result in results.items():
        failed = {side: found["num_failed"] for side, found in result.items() if "num_failed" in found}
        note(row(name, result) + (f" failed: {failed}" if any(failed.values()) else ""))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
