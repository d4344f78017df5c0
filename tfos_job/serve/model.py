"""A model that answers requests: a network with its batcher, and all that is done for a picture around it."""

from __future__ import annotations

import base64
import functools
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from tfos_job.errors import BadDataError
from tfos_job.formats.form import Form
from tfos_job.inference.answer import Answer, Guess, NoAnswer
from tfos_job.inference.pictures import Request
from tfos_job.serve.asked import Asked, Drawing, Options
from tfos_job.serve.batcher import Batcher
from tfos_job.serve.hub import aside
from tfos_job.serve.limits import Limits
from tfos_job.serve.metrics import Metrics
from tfos_job.serve.refusals import BadRequest, Failed, TooLarge, too_late

_WARM_UP_S = 600.0  # beyond the time that a caller has: the first answer builds graphs
_LIGHT_GUESSES = 128  # in an answer
_FEW = 16  # classes, which are found for all pictures of a batch together
_CROSS = [[[10, 30], [50, 30]], [[30, 10], [30, 50]]]


class Seen(Protocol):
    """A picture as the network sees it, and what is known without the network: of `Predictor.see`."""

    @property
    def answer(self) -> Answer: ...

    @property
    def pixels(self) -> np.ndarray: ...

    def with_top(self, top: tuple[Guess, ...]) -> Answer: ...


class Network(Protocol):
    """What is asked of a `Predictor`."""

    step: int
    digest: str
    form: Form

    @property
    def classes(self) -> Sequence[str]: ...

    def see(self, request: Request, *, raw_image: bool = False) -> Any: ...

    def images(self, pictures: Sequence[np.ndarray]) -> np.ndarray: ...

    def probabilities_of(self, pictures: Sequence[np.ndarray]) -> np.ndarray: ...

    def tops(self, probabilities: np.ndarray, top_k: int) -> list[tuple[Guess, ...]]: ...


Draw = Callable[[Sequence[Any], Sequence[Any]], np.ndarray]
"""From strokes and the size of their canvas to a picture, uint8 [h, w], as training saw them."""


@dataclass(frozen=True)
class Loaded:
    """What was loaded.

    Attributes:
      network: what computes; threads share it.
      draw: makes pictures of strokes.
      version: number of the export's version, or the checkpoint's step.
      top_k: classes in an answer of the exported network.
    """

    network: Network
    draw: Draw
    version: int
    top_k: int


def is_short(number: int, options: Options) -> bool:
    """True if the answer about so many pictures is made in next to no time."""
    return number * options.top_k <= _LIGHT_GUESSES and not options.seen


class _Wanted(NamedTuple):
    """What is to be computed of a picture.

    Attributes:
      pixels: as of `Seen`, or as of `Predictor.probabilities_of`.
      top_k: the number of classes, up to `_FEW`; None for the probabilities of all.
    """

    pixels: np.ndarray
    top_k: int | None


class Model:
    """A model under its name.

    Args:
      name: in answers and metrics.
      loaded: the network and what belongs to it.
      limits: of a request.
      metrics: takes what is counted.
      max_batch_size, max_latency_s, max_queue: of the `Batcher`.
    """

    def __init__(
        self,
        name: str,
        loaded: Loaded,
        *,
        limits: Limits,
        metrics: Metrics,
        max_batch_size: int,
        max_latency_s: float,
        max_queue: int,
    ) -> None:
        self.name = name
        self.loaded = loaded
        self._network = loaded.network
        self._limits = limits
        self._metrics = metrics
        self._max_batch_size = max_batch_size
        self.batcher = Batcher(
            self._compute,
            max_batch_size=max_batch_size,
            max_latency_s=max_latency_s,
            max_queue=max_queue,
            watcher=metrics.watcher(name),
        )

    def warm_up(self) -> None:
        """Computes batches of one picture and of as many as fit, and answers requests, before anybody waits for it.

        Raises:
          Refusal: the answer is none.
        """
        shape = (self._network.form.image_size, self._network.form.image_size, self._network.form.num_channels)
        for number in (1, self._max_batch_size):
            other = np.full((9, 8, shape[2]), 255, np.uint8)  # of another size: those are resized by a graph
            rows = self._network.probabilities_of([other] + [np.full(shape, 255, np.uint8)] * (number - 1))
            if rows.shape != (number, len(self._network.classes)) or not np.isfinite(rows).all():
                raise Failed(f"the network answers with {rows.shape} or with numbers that are not finite")
        asked = [Asked("picture", _file_of_a_cross()), Asked("drawing", Drawing(_CROSS, [60, 60]))]
        for one in asked:
            self.answer([one], Options(), time.monotonic(), timeout_s=_WARM_UP_S)

    def describe(self) -> dict[str, Any]:
        """The model in an answer."""
        return {"model": self.name, "digest": self._network.digest, "step": self._network.step}

    def answer(
        self, asked: Sequence[Asked], options: Options, arrived_s: float, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """The answers about pictures, in their order.

        Args:
          asked: what is asked about.
          options: how.
          arrived_s: when the request arrived, of `time.monotonic`.
          timeout_s: from then to the answer (default: that of the limits).

        Raises:
          Full: there is no room for so many.
          Unavailable: there was no answer in time.
          TooLarge: the only one has more pixels than are taken.
          BadRequest: the only one cannot be read.
          Failed: the network has failed.
        """
        until_s = self.until_s(arrived_s) if timeout_s is None else arrived_s + timeout_s
        with self.batcher.reserved(len(asked)) as places:
            see = functools.partial(self._see_all, asked, options, until_s)
            found = aside(see, until_s, unless=self._limits.are_light([one.source for one in asked]))
            few = options.top_k if options.top_k <= _FEW else None
            wanted = [_Wanted(one.pixels, few) for one in found if not isinstance(one, Answer | NoAnswer)]
            ticket = places.put(wanted, arrived_s) if wanted else None
        results = [] if ticket is None else ticket.wait(until_s)
        word = functools.partial(self._worded, found, results, options)
        answers = aside(word, until_s, unless=is_short(len(asked), options))
        if len(answers) == 1 and "error" in answers[0]:
            raise BadRequest(answers[0]["error"])
        return {**self.describe(), "predictions": answers}

    def rows(self, pictures: Callable[[], list[np.ndarray]], number: int, arrived_s: float) -> np.ndarray:
        """The probabilities of all classes for pictures.

        Args:
          pictures: makes them when there is room for them, each as of `Predictor.probabilities_of`.
          number: of pictures.
          arrived_s: as in `answer`.

        Returns:
          float32 [n, num_classes].

        Raises:
          Refusal: as `answer`.
        """
        until_s = self.until_s(arrived_s)
        with self.batcher.reserved(number) as places:
            made = aside(pictures, until_s)
            ticket = places.put([_Wanted(pixels, None) for pixels in made], arrived_s)
        rows = np.stack(ticket.wait(until_s))
        self.saw("answered", number)
        return rows

    def saw(self, outcome: str, number: int = 1) -> None:
        """Counts pictures, as `Metrics.saw`."""
        self._metrics.saw(self.name, outcome, number)

    def until_s(self, arrived_s: float) -> float:
        """When a request of that time must be answered; both of `time.monotonic`."""
        return arrived_s + self._limits.timeout_s

    def see(self, asked: Asked, options: Options, until_s: float, *, is_alone: bool) -> Any:
        """A picture or drawing as the network sees it, or the answer that needs no network, as `Predictor.see`.

        Raises:
          TooLarge: it has more pixels than are taken, and is alone.
          Unavailable: its turn does not come until then.
        """
        if time.monotonic() >= until_s:
            raise too_late()
        if isinstance(asked.source, Drawing):
            try:
                picture = self.loaded.draw(asked.source.strokes, asked.source.size)
            except BadDataError as error:
                return NoAnswer(asked.name, BadDataError(error.cause, next_step=error.next_step))
            # It is cropped and of training's width: what looks for ink could only lose a stroke.
            return self._network.see(Request(asked.name, picture), raw_image=True)
        try:
            self._limits.count_pixels(asked.source)
        except TooLarge as error:
            if is_alone:
                raise
            return NoAnswer(asked.name, BadDataError(error.fact))
        return self._network.see(Request(asked.name, asked.source), raw_image=options.raw_image)

    def _see_all(self, asked: Sequence[Asked], options: Options, until_s: float) -> list[Any]:
        return [self.see(one, options, until_s, is_alone=len(asked) == 1) for one in asked]

    def _compute(self, wanted: Sequence[_Wanted]) -> list[Any]:
        """What is wanted of pictures: the top classes, or a row of all probabilities; on the batcher's thread."""
        rows = self._network.probabilities_of([one.pixels for one in wanted])
        most = max((one.top_k for one in wanted if one.top_k), default=0)
        tops = self._network.tops(rows, most) if most else [()] * len(wanted)
        return [
            row if one.top_k is None else top[: one.top_k] for one, row, top in zip(wanted, rows, tops, strict=True)
        ]

    def _worded(self, found: Sequence[Any], results: Sequence[Any], options: Options) -> list[dict[str, Any]]:
        """The answers, with what was computed of those that the network has seen."""
        if results and options.top_k > _FEW:
            results = self._network.tops(np.stack(results), options.top_k)
        tops = iter(results)
        return [self._to_json(one, tops, options) for one in found]

    def _to_json(self, one: Any, tops: Any, options: Options) -> dict[str, Any]:
        if isinstance(one, NoAnswer):
            self.saw("unreadable")
            return one.to_json()
        answer = one if isinstance(one, Answer) else one.with_top(next(tops))
        self.saw("doubtful" if answer.doubtful else "answered")
        values = answer.to_json()
        if options.seen and not isinstance(one, Answer):
            values["seen"] = _png(self._network.images([one.pixels])[0])
        return values


def _file_of_a_cross() -> bytes:
    """A PNG of a character that every network of ink takes for one."""
    image = Image.new("L", (60, 60), 255)
    for (left, top), (right, bottom) in _CROSS:
        image.paste(40, (left - 2, top - 2, right + 2, bottom + 2))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _png(image: np.ndarray) -> str:
    """An image, uint8 [S, S, C], as a PNG in base64."""
    stream = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
