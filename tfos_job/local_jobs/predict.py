"""`predict`: the classes of pictures, in this process.

What can be known without TensorFlow is known before it is loaded: the checkpoint is read, and the pictures are listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tfos_job.config import PredictConfig
from tfos_job.errors import BadDataError, JobError
from tfos_job.inference import picture_files
from tfos_job.inference.answer import Answer, NoAnswer
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoints, own_network


def predict(config: PredictConfig, *, load_tensorflow: Callable[[], None] = lambda: None) -> Iterator[dict[str, Any]]:
    """Yields one JSON object per picture, in order, batch by batch.

    A picture that cannot be read has its object with `error`, and raises when all others are answered. `Predictor`
    answers about many lists of pictures, and about those that are no files.

    Args:
      config: run, pictures and number of classes.
      load_tensorflow: called before TensorFlow is imported; not if no picture is there.

    Raises:
      MissingInputError: there is no checkpoint; at the end: a picture, or a folder of pictures, was not there.
      SettingsError: the run's network is Python that `config.model_name` does not name.
      BadDataError: the checkpoint is damaged; at the end: a file was no picture.
      AccessError: at the end: all that could not be read is not allowed to be.
      StorageError: a file system has failed.
    """
    checkpoint = checkpoints.read_network(RunLayout(config.train_dir), config.checkpoint)
    own_network.require_named(checkpoint[0], config.model_name)
    requests = picture_files.requests_of(config.images)
    known = [NoAnswer(name, source) for name, source in requests if isinstance(source, JobError)]
    answers: Iterable[Answer | NoAnswer] = known
    if len(known) < len(requests):
        load_tensorflow()
        from tfos_job.inference.predictor import Predictor

        predictor = Predictor.restored(*checkpoint, raw_image=config.raw_image, model_name=config.model_name)
        answers = predictor.answers(requests, config.top_k)
    del checkpoint  # hundreds of megabytes
    failures = _Failures(len(requests))
    for answer in answers:
        if isinstance(answer, NoAnswer):
            failures.add(answer.error)
        yield answer.to_json()
    failures.raise_any()


@dataclass
class _Failures:
    """The errors about pictures: not themselves, which hold what was read."""

    num_pictures: int
    num_failures: int = 0
    first: str = ""
    kinds: set[type[JobError]] = field(default_factory=set)

    def add(self, error: JobError) -> None:
        if not self.num_failures:
            self.first = error.cause
        self.num_failures += 1
        self.kinds.add(type(error))

    def raise_any(self) -> None:
        """Raises the error of the kind that all were of, or else of bad data."""
        if self.num_failures:
            kind = next(iter(self.kinds)) if len(self.kinds) == 1 else BadDataError
            raise kind(
                f"{self.num_failures} of {self.num_pictures} pictures could not be read: {self.first}",
                next_step="Their lines say why",
            )
