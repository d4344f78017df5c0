"""HDFS in one stream: MB/s through tfos_job.storage over hdfs-native alone, and over Hadoop's own Java client.

A file is written from the page cache to HDFS and read from there to nowhere. The three clients take turns, in another
order each round, so that all see the same machine; what they need to start (a JVM, the first connection) is done in a
round before that is not counted. hdfs-native alone is used in the way that its documentation calls the most efficient.

    python benchmarks/storage.py                                  on a Hadoop of its own (scripts/hadoop.py)
    python benchmarks/storage.py --url hdfs:///tmp/benchmark      on the one of HADOOP_CONF_DIR; the folder must be new

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from tfos_job import storage
from tfos_job.errors import SettingsError
from tfos_job.storage.hdfs_client import connect, hdfs_path

_ROOT = Path(__file__).resolve().parent.parent
_BUFFER_BYTES = storage.BUFFER_BYTES
_MB = 1e6


class Client(Protocol):
    """One way to HDFS."""

    def write(self, source: Path, target: str) -> None:
        """Copies a local file to HDFS."""

    def read(self, source: str) -> int:
        """Reads a file of HDFS from its beginning to its end; returns the bytes."""


class Storage:
    """This package's."""

    def write(self, source: Path, target: str) -> None:
        with source.open("rb") as stream, storage.open_write(target) as copy:
            while block := stream.read(_BUFFER_BYTES):
                copy.write(block)

    def read(self, source: str) -> int:
        num_bytes = 0
        with storage.open_read(source) as stream:
            while block := stream.read(_BUFFER_BYTES):
                num_bytes += len(block)
        return num_bytes


class Native:
    """hdfs-native alone: no file aside, no wait that ends, no second try."""

    def __init__(self, url: str) -> None:
        self._client = connect(url).client

    def write(self, source: Path, target: str) -> None:
        from hdfs_native import WriteOptions

        with source.open("rb") as stream, self._client.create(hdfs_path(target), WriteOptions(overwrite=True)) as copy:
            while block := stream.read(_BUFFER_BYTES):
                copy.write(block)

    def read(self, source: str) -> int:
        reader = self._client.read(hdfs_path(source))
        return sum(len(block) for block in reader.read_range_stream(0, len(reader)))


class Jvm:
    """Hadoop's FileSystem in a JVM that is up already: what `hdfs dfs -put` and `-get` do."""

    def __init__(self, jvm: Any, url: str) -> None:
        self._jvm = jvm
        conf = jvm.org.apache.hadoop.conf.Configuration()
        for name in ("core-site.xml", "hdfs-site.xml"):
            conf.addResource(jvm.org.apache.hadoop.fs.Path(os.path.join(os.environ["HADOOP_CONF_DIR"], name)))
        self._files = jvm.org.apache.hadoop.fs.Path(url).getFileSystem(conf)

    def write(self, source: Path, target: str) -> None:
        stream = self._jvm.java.io.FileInputStream(str(source))
        self._copy(stream, self._files.create(self._jvm.org.apache.hadoop.fs.Path(target), True))

    def read(self, source: str) -> int:
        path = self._jvm.org.apache.hadoop.fs.Path(source)
        self._copy(self._files.open(path), self._jvm.java.io.OutputStream.nullOutputStream())
        return int(self._files.getFileStatus(path).getLen())

    def _copy(self, source: Any, target: Any) -> None:
        self._jvm.org.apache.hadoop.io.IOUtils.copyBytes(source, target, _BUFFER_BYTES, True)


@contextlib.contextmanager
def java() -> Iterator[Any]:
    """A JVM with Hadoop's client on its class path, for the length of a `with`."""
    from pyspark.java_gateway import launch_gateway

    gateway = launch_gateway()
    try:
        yield gateway.jvm
    finally:
        gateway.shutdown()
        gateway.proc.stdin.close()  # this is what ends it
        gateway.proc.wait(10)


@contextlib.contextmanager
def hadoop() -> Iterator[str]:
    """A Hadoop in a temporary folder, for the length of a `with`; yields a folder's URL there."""
    command = [sys.executable, str(_ROOT / "scripts" / "hadoop.py")]
    with tempfile.TemporaryDirectory(prefix="tfos_job-benchmark-") as parent:
        folder = f"{parent}/hadoop"
        try:
            subprocess.run([*command, "up", folder], check=True)
            os.environ["HADOOP_CONF_DIR"] = f"{folder}/conf"
            yield "hdfs:///tmp/benchmark"
        finally:
            subprocess.run([*command, "down", folder], check=True)


def measure(clients: dict[str, Client], url: str, source: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """MB/s of each round, by what was done and who did it."""
    num_bytes = source.stat().st_size
    rates: dict[str, dict[str, list[float]]] = {do: {name: [] for name in clients} for do in ("write", "read")}
    names = list(clients)
    for number in range(rounds + 1):  # the first one warms up
        names = names[1:] + names[:1]
        for name in names:
            path = f"{url}/{name}"
            begun_s = time.perf_counter()
            clients[name].write(source, path)
            written_s = time.perf_counter()
            found_bytes = clients[name].read(path)
            read_s = time.perf_counter()
            if found_bytes != num_bytes:
                raise AssertionError(f"{name} wrote {num_bytes} bytes and read {found_bytes}")
            if number:
                rates["write"][name].append(round(num_bytes / _MB / (written_s - begun_s), 1))
                rates["read"][name].append(round(num_bytes / _MB / (read_s - written_s), 1))
        if number:
            said = "; ".join(
                f"{do} " + ", ".join(f"{name} {found[name][-1]}" for name in clients) for do, found in rates.items()
            )
            print(f"round {number} of {rounds}, MB/s: {said}", file=sys.stderr)
    return rates


def summary(rates: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Medians, and the ratios of ours to the others': each round's, then their median, since the machine changes."""
    found: dict[str, Any] = {}
    for do, by_client in rates.items():
        for name, values in by_client.items():
            found[f"{do}_{name}_mb_per_second"] = round(statistics.median(values), 1)
            if name != "storage":
                ratios = [ours / theirs for ours, theirs in zip(by_client["storage"], values, strict=True)]
                found[f"{do}_ratio_to_{name}"] = round(statistics.median(ratios), 3)
    return found


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="HDFS MB/s through tfos_job.storage", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--url", help="folder on the HDFS of HADOOP_CONF_DIR; without it a Hadoop is started")
    parser.add_argument("--size_mib", type=int, default=256, help="size of the file")
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count")
    return parser.parse_args()


def run(args: argparse.Namespace, url: str) -> dict[str, list[Any]]:
    """On a folder that is made for it and removed."""
    if storage.exists(url):
        raise SettingsError("there already", place=url, next_step="Name a folder that is not there: it is removed")
    storage.make_dirs(url)
    try:
        with tempfile.NamedTemporaryFile(prefix="tfos_job-benchmark-") as file, java() as jvm:
            for _ in range(args.size_mib):
                file.write(os.urandom(1 << 20))
            file.flush()
            clients: dict[str, Client] = {"storage": Storage(), "native": Native(url), "jvm": Jvm(jvm, url)}
            return measure(clients, url, Path(file.name), args.rounds)
    finally:
        storage.remove(url)


def main() -> None:
    args = parse_args()
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        rates = run(args, args.url or stack.enter_context(hadoop()))
    report = {
        "benchmark": "storage",
        **summary(rates),
        "rounds_mb_per_second": rates,
        **vars(args),
        "cores": os.cpu_count(),
        "load_average_at_start": round(load, 2),
        "load_average_at_end": round(os.getloadavg()[0], 2),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("hdfs-native", "pyspark")},
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
