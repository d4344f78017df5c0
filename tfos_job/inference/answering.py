"""Answers about files of inputs: each record and picture of them becomes a row, whether it can be read or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from tfos_job.inference.answer import Guess
from tfos_job.inference.predictor import Predictor
from tfos_job.inference.records import RecordReader, Sight, ahead
from tfos_job.scoring.inputs import InputFile
from tfos_job.scoring.rows import Row

_BATCHES_AHEAD = 4
_NO_NUMBERS = "the network's probabilities are not finite numbers: its training has diverged"


class Answering:
    """A network that answers about files.

    Args:
      predictor: the network.
      top_k: number of classes of each answer; all of them if there are fewer.
      batch_size: images at a time.
    """

    def __init__(self, predictor: Predictor, *, top_k: int, batch_size: int) -> None:
        self._predictor = predictor
        self._top_k = top_k
        self._batch_size = batch_size
        self._reader = RecordReader(predictor)
        self._class_ids = {name: class_id for class_id, name in enumerate(predictor.classes)}

    def rows(self, files: Sequence[InputFile], got_on: Callable[[], None] = lambda: None) -> Iterator[Row]:
        """A row for each input of the files, in order; `got_on` is called for each that is read, and each batch.

        A batch has as many images whatever else is among them, so the same files always make the same batches.

        Raises:
          StorageError: a file system has failed.
        """
        for batch in ahead(self._batches(self._reader.read(files), got_on), _BATCHES_AHEAD):
            images = [sight.image for sight in batch if sight.image is not None]
            tops: Iterator[tuple[Guess, ...]] = iter(())
            if images:
                tops = iter(self._predictor.tops(self._predictor.probabilities_of(images), self._top_k))
            for sight in batch:
                row = Row(
                    source=sight.source,
                    offset=sight.offset,
                    label=sight.label,
                    label_id=self._class_ids.get(sight.label) if sight.label is not None else None,
                    doubtful=sight.doubtful,
                    error=sight.error,
                )
                yield row if sight.image is None else _answered(row, next(tops))
            got_on()

    def _batches(self, sights: Iterator[Sight], got_on: Callable[[], None]) -> Iterator[list[Sight]]:
        batch: list[Sight] = []
        num_images = 0
        for sight in sights:
            batch.append(sight)
            num_images += sight.image is not None
            got_on()  # a large photograph takes seconds, and a batch may be of hundreds
            if num_images == self._batch_size or len(batch) == 4 * self._batch_size:
                yield batch
                batch, num_images = [], 0
        if batch:
            yield batch


def _answered(row: Row, top: tuple[Guess, ...]) -> Row:
    """The row with what the network says; NaN is no answer, and JSON has no word for it."""
    probabilities = [guess.probability for guess in top]
    if not all(map(math.isfinite, probabilities)):
        return row._replace(error=_NO_NUMBERS)
    names, class_ids = [guess.character for guess in top], [guess.class_id for guess in top]
    return row._replace(classes=names, class_ids=class_ids, probabilities=probabilities)
