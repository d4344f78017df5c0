"""A server at twice what it can do, and one whose model is replaced again and again: nothing is lost, nothing grows.

    python tests/campaigns/serving.py --log serving.jsonl [--minutes 5] [--reloads 20] [--network chinese_rec]

First wrk asks with twice as many connections as there are places, each again as soon as it is answered or refused, and
SIGTERM comes in the midst of it. Every request must be answered (200) or refused (429, 503), and the server must end
saying that none is left; its memory (USS), threads and descriptors may not grow once a quarter of the time is over.
Then newer versions of an export are published one after the other while wrk asks; no answer may fail, nor may memory
grow by more than a sixteenth of the weights a version. Needs wrk. Exit code 1 where something is lost or has grown;
benchmarks/README.md has the last run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # to be run as a program as well

from tests.command import Command  # noqa: E402
from tests.unit import small_runs  # noqa: E402
from tfos_job.config import ExportConfig  # noqa: E402
from tfos_job.layout import EXPORT_DOCUMENT, ExportLayout  # noqa: E402
from tfos_job.local_jobs.export import export  # noqa: E402
from tfos_job.run import exports  # noqa: E402

MIB = 1 << 20
QUEUE, BATCH = 64, 32
OVERLOAD_MIB = 24.0
"""What memory may grow by over the whole overload: pools of buffers find their size within it."""
SETTLED_RELOADS = 4
SAMPLE_S = 2.0
EXPECTED = {"200", "429", "503"}
_GENERATED = ("version", "files", "document_sha256", "format_version")


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=60) as answer:
        return str(answer.read().decode())


def statuses(url: str) -> dict[str, int]:
    """Answers to `/predict` so far, by status."""
    found = re.findall(r'requests_total\{route="/predict",status="(\d+)"\} ([\d.e+]+)', get(f"{url}/metrics"))
    return {status: int(float(count)) for status, count in found}


def held(process: psutil.Process) -> dict[str, float]:
    return {
        "mib": process.memory_full_info().uss / MIB,
        "threads": process.num_threads(),
        "descriptors": process.num_fds(),
    }


class Server:
    """The command, once it answers."""

    def __init__(self, *flags: object) -> None:
        self.command = Command("serve", "--port", 0, "--access_log", "/dev/null", *flags)
        self.command.wait_until(lambda: "\n" in self.command.stdout)
        self.url = self.command.result()["url"].rstrip("/")
        self.process = psutil.Process(self.command.pid)

    def end(self) -> list[str]:
        """What is wrong with its end."""
        self.command.send_signal(signal.SIGTERM)
        code, last = self.command.wait(), self.command.stderr.splitlines()[-1]
        if code != 143 or "no request is left without an answer" not in last:
            return [f"the end: {code}, {last}"]
        return []


@contextlib.contextmanager
def asking(url: str, folder: Path, clients: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
    script = folder / "post.lua"
    (folder / "picture.png").write_bytes(small_runs.png(small_runs.glyph(np.random.default_rng(0))))
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "image/png"\n'
        f'local file = io.open("{folder}/picture.png", "rb")\nwrk.body = file:read("*all")\nfile:close()\n'
    )
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "60s", "-s", str(script)]
    process = subprocess.Popen([*command, f"{url}/predict?raw_image=1"], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def overload(train_dir: str, folder: Path, seconds: float) -> tuple[dict[str, Any], list[str]]:
    """The record of an overload, and what is wrong."""
    server = Server("--train_dir", train_dir, "--max_queue", QUEUE, "--max_batch_size", BATCH)
    samples: list[dict[str, float]] = []
    with asking(server.url, folder, 2 * (QUEUE + BATCH), seconds + 60) as wrk:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            time.sleep(SAMPLE_S)
            samples.append(held(server.process))
        counts = statuses(server.url)
        wrong = server.end()
        wrk.send_signal(signal.SIGINT)  # wrk then reports
        said = wrk.communicate()[0]
    wrong += [f"answers of status {status}: {count}" for status, count in counts.items() if status not in EXPECTED]
    if not counts.get("429"):
        wrong.append("nothing was refused: this was no overload")
    settled = samples[len(samples) // 4 :]
    growth = slope([each["mib"] for each in settled]) * len(settled)
    if growth > OVERLOAD_MIB:
        wrong.append(f"memory has grown by {growth:.0f} MiB")
    for name in ("threads", "descriptors"):
        if settled[-1][name] > settled[0][name] + 2:
            wrong.append(f"{name}: {settled[0][name]:.0f}, then {settled[-1][name]:.0f}")
    record = {"what": "overload", "statuses": counts, "first": settled[0], "last": settled[-1], "growth_mib": growth}
    return {**record, "wrk": said.splitlines()[-4:]}, wrong


def publish_again(info: exports.ExportInfo, export_dir: str) -> exports.ExportInfo:
    """The same network as the next version."""
    document = {key: value for key, value in info.document.items() if key not in _GENERATED}
    with exports.local_files(info) as files, tempfile.TemporaryDirectory() as copy:
        shutil.copytree(files, copy, dirs_exist_ok=True)
        (Path(copy) / EXPORT_DOCUMENT).unlink(missing_ok=True)
        published = exports.publish(ExportLayout(export_dir), copy, document)
    exports.retain(ExportLayout(export_dir), 2)
    return published


def reloads(train_dir: str, folder: Path, number: int) -> tuple[dict[str, Any], list[str]]:
    """The record of reloads, and what is wrong."""
    export_dir = str(folder / "exports")
    export(ExportConfig(train_dir=train_dir, export_dir=export_dir))
    info = exports.read(exports.resolve(export_dir))
    weights_mib = sum(file["size_bytes"] for file in info.document["files"].values()) / MIB
    server = Server("--export_dir", export_dir, "--reload_seconds", 0.2)
    memory = [held(server.process)["mib"]]
    with asking(server.url, folder, 4, 3600):
        for _ in range(number):
            info = publish_again(info, export_dir)
            while f'"version": "{info.version}"' not in get(f"{server.url}/v1/models/default").replace('":"', '": "'):
                time.sleep(0.1)
            time.sleep(SAMPLE_S)  # the old one is gone, and requests have come
            memory.append(held(server.process)["mib"])
            note(f"version {info.version}: {memory[-1]:.0f} MiB")
        counts = statuses(server.url)
        wrong = server.end()
    wrong += [f"answers of status {status}: {count}" for status, count in counts.items() if status != "200"]
    growth = slope(memory[SETTLED_RELOADS:])
    limit = max(2.0, weights_mib / 16)
    if growth > limit:
        wrong.append(f"memory grows by {growth:.1f} MiB a version, and may by {limit:.1f}")
    record = {"what": "reloads", "statuses": counts, "memory_mib": memory, "growth_mib": growth}
    return {**record, "weights_mib": weights_mib}, wrong


def slope(values: Sequence[float]) -> float:
    """Of a straight line through values."""
    return float(np.polyfit(range(len(values)), values, 1)[0]) if len(values) > 1 else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--log", type=Path, required=True, help="file to which a line of JSON is added for each part")
    parser.add_argument("--minutes", type=float, default=5, help="of overload")
    parser.add_argument("--reloads", type=int, default=20, help="newer versions")
    parser.add_argument("--network", default="chinese_rec")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not there: `apt-get install wrk`")
    complaints = []
    with tempfile.TemporaryDirectory(prefix="tfos_job-serving-") as name:
        folder = Path(name)
        model = {"model_name": arguments.network, "num_classes": 7, "image_size": 64, "keep_prob": 0.8}
        run = small_runs.make(folder, num_records=20, model=model)
        parts = [
            lambda: overload(run.train_dir, folder, 60 * arguments.minutes),
            lambda: reloads(run.train_dir, folder, arguments.reloads),
        ]
        for part in parts:
            record, wrong = part()
            complaints += wrong
            note(json.dumps(record))
            with arguments.log.open("a") as log:
                log.write(json.dumps({**record, "wrong": wrong, "at": time.strftime("%Y-%m-%d")}) + "\n")
    for complaint in complaints:
        note(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
