"""The memory that is counted for a JSON is what its values take, or more."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from tfos_job.serve.bodies import Bodies

N = 20_000
BODIES = {
    "lists": "[" + "[]," * N + "1]",
    "points": "[" + "[1.5,2.5]," * N + "1]",
    "objects": "[" + "{}," * N + "1]",
    "keys": json.dumps({f"key {number}": 10**9 + number for number in range(N)}),
    "objects of a key": json.dumps([{f"key {number}": {}} for number in range(N)]),
    "texts": json.dumps([f"text {number}" for number in range(N)]),
    "a long text": json.dumps("a" * 10 * N),
    "an emoji": json.dumps("😀" + "a" * 10 * N, ensure_ascii=False),
    "an escape": json.dumps("😀" + "a" * 10 * N),
}


@pytest.mark.parametrize("name", BODIES)
def test_json(name: str) -> None:
    body = BODIES[name].encode()
    with Bodies().share() as share:
        share.take_json(body, sum(map(body.count, b"[{,")))
        counted = share.num_bytes
    tracemalloc.start()
    try:
        json.loads(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - 4096 < counted < 6 * peak  # whatever it takes besides
