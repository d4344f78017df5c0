"""`predict`: the classes of single images, in this process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

from tfos_job import storage
from tfos_job.config import PredictConfig
from tfos_job.formats import readers
from tfos_job.inference.predictor import read_picture, top_predictions
from tfos_job.layout import RunLayout
from tfos_job.networks.variables import form_of, restore_model
from tfos_job.run import checkpoints

STDIN = "-"

_log = logging.getLogger(__name__)


def predict(config: PredictConfig) -> Iterator[dict[str, Any]]:
    """Yields one JSON object per image, as soon as it is computed.

    An unreadable image raises after the results of the images before it.

    Raises:
      MissingInputError: there is no checkpoint, or an image does not exist.
      BadDataError: the checkpoint is damaged, or a file is not an image.
    """
    info, arrays = checkpoints.read(RunLayout(config.train_dir), config.checkpoint)
    model = restore_model(info, arrays)
    form, reader = form_of(info), readers.resolve(None, info.dataset_name, info.path)
    for image in config.images:
        glyph = read_picture(_read(image), image, num_channels=form.num_channels, may_be_inverted=reader.on_paper)
        if glyph.inverted:
            _log.info("%s: white on black, turned over", image)
        predictions = top_predictions(model, glyph, form=form, k=config.top_k)
        yield {
            "image": image,
            "inverted": glyph.inverted,
            "step": info.step,
            "top": [
                {"character": info.characters[p.class_id], "class_id": p.class_id, "probability": p.probability}
                for p in predictions
            ],
        }


def _read(image: str) -> bytes:
    return sys.stdin.buffer.read() if image == STDIN else storage.read_bytes(image)
