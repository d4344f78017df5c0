"""What a command pays before it does anything: processor seconds of Spark's JVM and of TensorFlow's import.

    jvm      a session on `local[2]` and one small job, as this package starts it, over a JVM with all its compilers
    node     TensorFlow for a node, as training/server_process.py imports it, over `import tensorflow`
    command  TensorFlow for a command or the coordinator, which have Keras, over `import tensorflow`

Each is a process of its own, run in turn with its peer. Processor time of all threads, which other work on the host
changes less than it does wall time; that is in the results as well. Ratios are of the medians.

    python benchmarks/start.py

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

SESSION = """
from pyspark import SparkContext
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
for key in ("spark.driver.host", "spark.driver.bindAddress"):
    builder = builder.config(key, "127.0.0.1")
session = builder{}.getOrCreate()
assert session.sparkContext.parallelize(range(4), 2).sum() == 6
session.stop()
gateway = SparkContext._gateway
gateway.shutdown()
gateway.proc.stdin.close()
gateway.proc.wait()  # so that its time counts
"""
OPTIONS = '.config("spark.driver.extraJavaOptions", JAVA_OPTIONS)'
IMPORT = "from tfos_job.host.imports import without\nwith without({!r}):\n    import tensorflow"
PLAIN = "import tensorflow"

# Ours and the peer.
WAYS = {
    "jvm": ("from tfos_job.driver.session import JAVA_OPTIONS" + SESSION.format(OPTIONS), SESSION.format("")),
    "node": (IMPORT.format("keras"), PLAIN),
    "command": (IMPORT.format("matplotlib"), PLAIN),
}


def measure(code: str) -> tuple[float, float]:
    """Processor and wall seconds of a Python process that runs this, its children's included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.perf_counter()
    env = os.environ | {"PYSPARK_PYTHON": sys.executable, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, stderr=subprocess.DEVNULL)
    wall_s = time.perf_counter() - began_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description="processor seconds before a command does anything, over plain starts")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {f"{way}{of}": [] for way in WAYS for of in ("", "_peer")}
    load = os.getloadavg()[0]
    for number in range(args.rounds):
        for way, codes in WAYS.items():
            turn = list(zip((way, f"{way}_peer"), codes, strict=True))
            for name, code in turn if number % 2 else turn[::-1]:
                found[name].append(measure(code))
        said = ", ".join(f"{name} {values[-1][0]:.2f}" for name, values in found.items())
        print(f"round {number + 1} of {args.rounds}, processor seconds: {said}", file=sys.stderr)
    cpu_s, wall_s = ({name: statistics.median(v[i] for v in values) for name, values in found.items()} for i in (0, 1))
    result = {
        "benchmark": "start",
        "cpu_s": {name: round(value, 2) for name, value in cpu_s.items()},
        "wall_s": {name: round(value, 2) for name, value in wall_s.items()},
        "ratio": {way: round(cpu_s[way] / cpu_s[f"{way}_peer"], 3) for way in WAYS},
        "rounds": args.rounds,
        "load_average_at_start": round(load, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
