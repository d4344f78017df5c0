"""Runs a program as a notebook does: on a thread, while an event loop runs. Then trains once more, on the main thread.

The program leaves its SparkSession `spark` behind, as its cells would. Usage: PROGRAM DATASET_DIR TRAIN_DIR.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import sys
from typing import Any

from pyspark import SparkContext

from tfos_job import TrainConfig, train

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


def of_process() -> dict[str, Any]:
    """What a library must leave as it was."""
    handlers = {signum.name: signal.getsignal(signum) for signum in SIGNALS}
    return {**os.environ, **handlers, "context": SparkContext._active_spark_context}


async def main(program: str, dataset_dir: str, train_dir: str) -> None:
    cells = await asyncio.to_thread(runpy.run_path, program, run_name="__main__")
    rows = cells["spark"].range(3).count()
    cells["spark"].stop()
    before = of_process()
    config = TrainConfig(dataset_dir=dataset_dir, train_dir=train_dir, max_number_of_steps=2, image_size=16)
    steps = train(config, master="local[2]")["step"]
    after = of_process()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    print(json.dumps({"rows": rows, "steps": steps, "changed": changed}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
