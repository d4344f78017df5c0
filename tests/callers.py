"""Programs that ask a server of `tfos-job serve`."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

PNG, JSON = "image/png", "application/json"
KEY = "a key that only these tests have"


def cross() -> bytes:
    """A PNG of a cross in ink."""
    pixels = np.full((60, 60), 255, np.uint8)
    pixels[28:32, 6:-6] = 40
    pixels[6:-6, 28:32] = 80
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


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


def ask_until_closed(port: int, seen: Counter[int]) -> list[int]:
    """The statuses of requests, one after the other, until the server ends the connection."""
    statuses = []
    with contextlib.closing(Client(port)) as client:
        while client.headers.get("Connection") != "close":
            statuses.append(client.ask("/predict", cross())[0])
            seen[statuses[-1]] += 1
    return statuses
