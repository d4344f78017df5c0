"""The answer about one picture, a line of `predict`'s output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfos_job.errors import JobError

_DIGITS = 6  # float32 has seven, and batches of other sizes differ in the last


@dataclass(frozen=True)
class Guess:
    """One of the most probable classes, with its softmax probability."""

    character: str
    class_id: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer about a picture.

    Attributes:
      image: the picture's name.
      step: of the checkpoint.
      top: the most probable classes, the most probable first; of a doubtful picture they are `guesses` in JSON, so that
        who reads `top` alone never takes one for an answer.
      inverted: whether it was bright ink on dark paper, and was turned over.
      box: left, top, right and bottom of the ink that was found; None where there is none, or it was not looked for.
      doubtful: why it may be no character; "" if it seems to be one.
    """

    image: str
    step: int
    top: tuple[Guess, ...]
    inverted: bool = False
    box: tuple[int, int, int, int] | None = None
    doubtful: str = ""

    def to_json(self) -> dict[str, Any]:
        guesses = [
            {"character": g.character, "class_id": g.class_id, "probability": round(g.probability, _DIGITS)}
            for g in self.top
        ]
        line: dict[str, Any] = {"image": self.image, "inverted": self.inverted, "step": self.step}
        line["top"] = [] if self.doubtful else guesses
        if self.box is not None:
            line["box"] = list(self.box)
        if self.doubtful:
            line["doubtful"] = self.doubtful
            if guesses:
                line["guesses"] = guesses
        return line


@dataclass(frozen=True)
class NoAnswer:
    """A picture that could not be read. Its error loses its traceback, and so do those behind it.

    Else whoever keeps the answer in a variable is tied to it in a ring, by the frames of that traceback, and the
    picture's bytes with them: that lasts until Python's collector looks for such.
    """

    image: str
    error: JobError

    def __post_init__(self) -> None:
        error: BaseException | None = self.error
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__

    def to_json(self) -> dict[str, Any]:
        """Without the error's place, which is the picture."""
        return {"image": self.image, "error": ". ".join(filter(None, (self.error.fact, self.error.next_step)))}
