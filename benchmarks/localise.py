"""Seconds that a node needs to unpack environments, and that TensorFlow's import takes from each of them.

    localising  Hadoop's own FSDownload, the class with which YARN's NodeManager unpacks an archive, from a local file.
                It sets the mode of each entry, and starts a `chmod` for it where Hadoop's native library is missing
    native      what remains of that where the library is there: `tar` alone, and one `chmod -R`
    import      `import tensorflow` in the unpacked environment, whose bytecode is not written (a node's cache may be
                read-only)

The archives take turns; ratios are of medians, over the first archive.

    python -m tfos_job.submit.environment --output now.tar.gz
    python benchmarks/localise.py before.tar.gz now.tar.gz

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.java_gateway import launch_gateway

IMPORT = "import time; began_s = time.perf_counter(); import tensorflow; print(time.perf_counter() - began_s)"


def localise(jvm: Any, archive: Path, target: Path) -> None:
    """As a NodeManager does, with default settings."""
    conf = jvm.org.apache.hadoop.conf.Configuration()
    files = jvm.org.apache.hadoop.fs.FileContext.getLocalFSFileContext(conf)
    source = jvm.org.apache.hadoop.fs.Path(archive.as_uri())
    status = files.getFileStatus(source)
    records = jvm.org.apache.hadoop.yarn.api.records
    resource = records.LocalResource.newInstance(
        records.URL.fromPath(source),
        records.LocalResourceType.ARCHIVE,
        records.LocalResourceVisibility.APPLICATION,
        status.getLen(),
        status.getModificationTime(),
    )
    user = jvm.org.apache.hadoop.security.UserGroupInformation.getCurrentUser()
    folder = jvm.org.apache.hadoop.fs.Path(target.as_uri())
    jvm.org.apache.hadoop.yarn.util.FSDownload(files, user, conf, folder, resource).call()


def untar(archive: Path, target: Path) -> None:
    target.mkdir()
    subprocess.run(["tar", "xzf", archive, "-C", target], check=True)
    subprocess.run(["chmod", "-R", "u=rwx,go=rx", target], check=True)


def seconds(work: Callable[[], None]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def import_s(root: Path) -> float:
    python = next(path for path in root.rglob("bin/python"))
    env = {"PATH": os.defpath, "PYTHONNOUSERSITE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([python, "-B", "-c", IMPORT], env=env, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(archives: list[Path], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Of each round, the seconds of each archive by what takes them."""
    found: dict[str, list[dict[str, float]]] = {str(archive): [] for archive in archives}
    gateway = launch_gateway()
    try:
        for number in range(rounds):
            for archive in archives:
                with tempfile.TemporaryDirectory(prefix="tfos_job-localise-", dir=archive.parent) as scratch:
                    root = Path(scratch, "localised")
                    line = {"localising": seconds(lambda a=archive, r=root: localise(gateway.jvm, a, r))}  # type: ignore[misc]
                    import_s(root)  # brings the files into the page cache
                    line["import"] = statistics.median(import_s(root) for _ in range(3))
                    shutil.rmtree(root)
                    line["native"] = seconds(lambda a=archive, s=scratch: untar(a, Path(s, "untarred")))  # type: ignore[misc]
                found[str(archive)].append(line)
                said = ", ".join(f"{name} {value:.1f} s" for name, value in line.items())
                print(f"round {number + 1} of {rounds}, {archive.name}: {said}", file=sys.stderr)
    finally:
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds to unpack environments as YARN does, and to import from them")
    parser.add_argument("archives", type=Path, nargs="+", help=".tar.gz of tfos_job.submit.environment")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    found = measure([archive.resolve() for archive in args.archives], args.rounds)
    medians = [{name: statistics.median(line[name] for line in lines) for name in lines[0]} for lines in found.values()]
    result = {
        "benchmark": "localise",
        "seconds": {
            Path(archive).name: {name: round(value, 2) for name, value in line.items()}
            for archive, line in zip(found, medians, strict=True)
        },
        "ratio": [{name: round(value / medians[0][name], 3) for name, value in line.items()} for line in medians[1:]],
        "rounds": args.rounds,
        "load_average_at_start": round(load, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
