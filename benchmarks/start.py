"""What a command pays before it does anything: processor seconds of Spark's JVM and of TensorFlow's import.

    jvm      a session on `local[2]` and one small job, as this package starts it, over a JVM with all its compilers
    keys     a session on `local[2]` with keys, encryption and sockets instead of ports, as this package starts it,
             which fetches 64 MiB from its tasks, over one without these
    sealed   the same on `local-cluster[1,1,1024]`, where they come from another JVM
    node     TensorFlow for a node, as training/server_process.py imports it, over `import tensorflow`
    command  TensorFlow for a command or the coordinator, which have Keras, over `import tensorflow`
    predict  `tfos-job predict` of one picture by a checkpoint of the default network for all 3,755 characters, with the
             optimizer's arrays as training leaves them (252 MB), over `import tensorflow`

Each is a process of its own, run in turn with its peer. Processor time of all threads, which other work on the host
changes less than it does wall time; that is in the results as well. Ratios are of the medians. `predict_of_limit` is
predict's part of 1.5 times the import + 2 s, which it should stay within (processor seconds, and wall seconds).

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
import tempfile
import time
from collections.abc import Sequence

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
GUARDED = """
from pyspark import SparkContext
from pyspark.sql import SparkSession
from tfos_job.driver import local_spark
builder = SparkSession.builder.master("{master}")
for key, value in (local_spark.settings() | local_spark.guards("{master}")).items():
    if {guarded} or not key.startswith(("spark.authenticate", "spark.network.crypto", "spark.python.unix")):
        builder = builder.config(key, value)
session = builder.getOrCreate()
parts = session.sparkContext.parallelize(range(64), 2).map(lambda i: bytes([i]) * (1 << 20)).collect()
assert [len(part) for part in parts] == [1 << 20] * 64
session.stop()
gateway = SparkContext._gateway
gateway.shutdown()
gateway.proc.stdin.close()
gateway.proc.wait()
"""
IMPORT = "from tfos_job.host.imports import without\nwith without({!r}):\n    import tensorflow"
PLAIN = "import tensorflow"

# A run's folder with a checkpoint and a picture, which the command line names.
RUN = """
import sys
import keras
import numpy as np
from PIL import Image
from tfos_job.formats.charset import level1
from tfos_job.layout import RunLayout
from tfos_job.networks import registry, variables
from tfos_job.run import checkpoints
charset = level1(3755)
shape = {"num_classes": len(charset), "image_size": 64, "num_channels": 1, "keep_prob": 0.8}
model = registry.build("chinese_rec", **shape, seed=1)
optimizer = keras.optimizers.Adam(2e-4)
optimizer.build(model.trainable_variables)
arrays = {name: v.numpy() for name, v in variables.all_variables(model, optimizer).items()}
meta = dict.fromkeys(checkpoints.META_KEYS) | {
    "model": {"model_name": "chinese_rec", **shape}, "characters": charset.characters
}
checkpoints.publish(RunLayout(sys.argv[1]), 1, arrays, meta)
page = np.full((480, 640), 235, np.uint8)
page[200:206, 250:350] = page[150:300, 297:303] = 40
Image.fromarray(page).save(sys.argv[1] + "/page.png")
"""
PREDICT = """
import sys
from tfos_job.cli import main
sys.exit(main(["predict", "--train_dir", sys.argv[1], sys.argv[1] + "/page.png"]))
"""

# Ours and the peer.
WAYS = {
    "jvm": ("from tfos_job.driver.local_spark import JAVA_OPTIONS" + SESSION.format(OPTIONS), SESSION.format("")),
    "keys": tuple(GUARDED.format(master="local[2]", guarded=guarded) for guarded in (True, False)),
    "sealed": tuple(GUARDED.format(master="local-cluster[1,1,1024]", guarded=guarded) for guarded in (True, False)),
    "node": (IMPORT.format("keras"), PLAIN),
    "command": (IMPORT.format("matplotlib"), PLAIN),
    "predict": (PREDICT, PLAIN),
}


def measure(code: str, folder: str) -> tuple[float, float]:
    """Processor and wall seconds of a Python process that runs this, its children's included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.perf_counter()
    env = os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-c", code, folder], env=env, check=True, **quiet)
    wall_s = time.perf_counter() - began_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s


def rounds(ways: Sequence[str], number: int, folder: str) -> dict[str, list[tuple[float, float]]]:
    """The seconds of each way and of its peer, in each round."""
    found: dict[str, list[tuple[float, float]]] = {f"{way}{of}": [] for way in ways for of in ("", "_peer")}
    for at in range(number):
        for way in ways:
            turn = list(zip((way, f"{way}_peer"), WAYS[way], strict=True))
            for name, code in turn if at % 2 else turn[::-1]:
                found[name].append(measure(code, folder))
        said = ", ".join(f"{name} {values[-1][0]:.2f}" for name, values in found.items())
        print(f"round {at + 1} of {number}, processor seconds: {said}", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="processor seconds before a command does anything, over plain starts")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="some of them (default: all)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        if "predict" in args.ways:
            measure(RUN, folder)
        found = rounds(args.ways, args.rounds, folder)
    cpu_s, wall_s = ({name: statistics.median(v[i] for v in values) for name, values in found.items()} for i in (0, 1))
    result = {
        "benchmark": "start",
        "cpu_s": {name: round(value, 2) for name, value in cpu_s.items()},
        "wall_s": {name: round(value, 2) for name, value in wall_s.items()},
        "ratio": {way: round(cpu_s[way] / cpu_s[f"{way}_peer"], 3) for way in args.ways},
        "rounds": args.rounds,
        "load_average_at_start": round(load, 2),
    }
    if "predict" in args.ways:
        of_limit = [taken["predict"] / (1.5 * taken["predict_peer"] + 2) for taken in (cpu_s, wall_s)]
        result["predict_of_limit"] = [round(part, 3) for part in of_limit]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
