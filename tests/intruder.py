"""A program that has TensorFlow's servers write files, as anybody can who reaches their ports.

    python -m tests.intruder ADDRESS=FILE …

Each ADDRESS (`host:port`) is asked to write FILE. Prints a line of JSON for each: the address, and `written` or why
not.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

LIMIT_MS = 10_000


def intrude(address: str, path: str) -> str:
    """Runs a graph on a server, on its first CPU."""
    graph = tf.Graph()
    with graph.as_default(), tf.device("/device:CPU:0"):
        write = tf.io.write_file(path, "written by TensorFlow")
    config = tf.compat.v1.ConfigProto(operation_timeout_in_ms=LIMIT_MS)
    # Else the server would wait for all of its cluster.
    config.device_filters.append("/job:nobody")
    try:
        with tf.compat.v1.Session(f"grpc://{address}", graph=graph, config=config) as session:
            session.run(write)
    except tf.errors.OpError as error:
        return f"{type(error).__name__}: {error.message.splitlines()[0]}"
    return "written"


if __name__ == "__main__":
    orders = [word.split("=", 1) for word in sys.argv[1:]]
    with ThreadPoolExecutor(max(1, len(orders))) as threads:
        for (name, _), answer in zip(orders, threads.map(lambda order: intrude(*order), orders), strict=True):
            print(json.dumps([name, answer]))
