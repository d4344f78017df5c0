"""A served model without TensorFlow, and the application around it, for tests."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from PIL import Image

from tfos_job.errors import BadDataError
from tfos_job.formats.form import Form
from tfos_job.inference import pictures, strokes
from tfos_job.inference.answer import Answer, Guess, NoAnswer
from tfos_job.inference.pictures import Request
from tfos_job.serve import application
from tfos_job.serve.access_log import AccessLog
from tfos_job.serve.keys import Keys
from tfos_job.serve.lifecycle import Lifecycle
from tfos_job.serve.limits import Limits
from tfos_job.serve.metrics import Metrics
from tfos_job.serve.model import Loaded, Model
from tfos_job.serve.models import Models

SIDE = 8


@dataclass(frozen=True)
class Seen:
    answer: Answer
    pixels: np.ndarray

    def with_top(self, top: tuple[Guess, ...]) -> Answer:
        return Answer(image=self.answer.image, step=self.answer.step, top=top)


@dataclass
class Network:
    """Classes by the picture's first pixel: 0 for black, the last one for white. What it was asked is in `asked`."""

    step: int = 7
    digest: str = "d" * 64
    form: Form = field(default_factory=lambda: Form(image_size=SIDE, num_channels=1, antialias=False))
    classes: tuple[str, ...] = ("一", "丁", "七", "万")
    asked: list[Request] = field(default_factory=list)
    raw: list[bool] = field(default_factory=list)
    batches: list[np.dtype[Any]] = field(default_factory=list)
    fault: BaseException | None = None

    def see(self, request: Request, *, raw_image: bool = False) -> Seen | Answer | NoAnswer:
        self.asked.append(request)
        self.raw.append(raw_image)
        try:
            pixels = pictures.read(request, num_channels=1)
        except BadDataError as error:
            return NoAnswer(request.name, error)
        answer = Answer(image=request.name, step=self.step, top=())
        if pixels.min() == pixels.max() == 255 and not raw_image:
            return Answer(image=request.name, step=self.step, top=(), doubtful="blank")
        return Seen(answer, np.full((SIDE, SIDE, 1), pixels[0, 0, 0], np.uint8))

    def images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        shape = (SIDE, SIDE, 1)
        return np.stack([one if one.shape == shape else np.full(shape, one[0, 0, 0], one.dtype) for one in pictures])

    def probabilities_of(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        if self.fault is not None:
            raise self.fault
        images = self.images(pictures)
        self.batches.append(images.dtype)
        ids = images[:, 0, 0, 0].astype(int) * len(self.classes) // 256
        return (np.eye(len(self.classes))[ids] * 0.9).astype(np.float32)

    def tops(self, probabilities: np.ndarray, top_k: int) -> list[tuple[Guess, ...]]:
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        return [
            tuple(Guess(self.classes[i], int(i), float(row[i])) for i in ids)
            for ids, row in zip(order, probabilities, strict=True)
        ]


class Held(Network):
    """Computes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = threading.Semaphore(0), threading.Event()

    def probabilities_of(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        self.began.release()
        self.go.wait()
        return super().probabilities_of(pictures)


def png(*grey: int, width: int = 5, height: int = 4) -> bytes:
    """A picture of these levels in its first pixels, black elsewhere."""
    pixels = np.zeros((height, width), np.uint8)
    pixels.flat[: len(grey)] = grey
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


class Served:
    """An application that is ready, its client, and all that it stands on."""

    def __init__(self, *, keys: Path | None = None, **changes: Any) -> None:
        settings: dict[str, Any] = {"max_batch_size": 4, "max_latency_s": 0.0, "max_queue": 8, **changes}
        self.network = settings.pop("network", None) or Network()
        self._lines: list[str] = []
        max_pixels, timeout_s = settings.pop("max_pixels", 10_000), settings.pop("timeout_s", 600.0)
        self.limits = Limits(max_images=4, max_pixels=max_pixels, timeout_s=timeout_s)
        self.metrics = Metrics()
        self.settings = settings
        self.model = self.model_of("default", self.network)
        self.models = Models()
        self.lifecycle = Lifecycle()
        self.service = application.Service(
            models=self.models,
            lifecycle=self.lifecycle,
            limits=self.limits,
            max_body_bytes=20_000,
            metrics=self.metrics,
            access_log=AccessLog(lambda lines: self._lines.extend(lines.splitlines())),
            keys=None if keys is None else Keys(str(keys)),
        )
        self.app = application.make(self.service)
        self.client: FlaskClient = self.app.test_client()

    def model_of(self, name: str, network: Network) -> Model:
        loaded = Loaded(network, strokes.draw, version=network.step * 100, top_k=2)
        return Model(name, loaded, limits=self.limits, metrics=self.metrics, **self.settings)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The access log, which ends with that."""
        self.service.access_log.close(600)
        return [json.loads(line) for line in self._lines]

    def begin(self) -> Served:
        self.models.put(self.model)
        self.lifecycle.begin()
        return self

    def predict(self, data: Any, content_type: str | None = "image/png", query: str = "") -> tuple[int, Any]:
        response = self.client.post(f"/predict{query}", data=data, content_type=content_type)
        return response.status_code, response.json

    def ask(self, value: Any, query: str = "") -> tuple[int, Any]:
        return self.predict(json.dumps(value), "application/json", query)
