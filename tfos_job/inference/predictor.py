"""A checkpoint that answers about pictures, in batches.

A picture becomes the pixels that `convert` would store (`pictures.py`) and is preprocessed by the same `preprocess` as
in training and evaluation. For a network of glyphs the ink is found first (`ink.py`), since they are cropped to theirs.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfos_job.config.defaults import PREDICTED_BATCH
from tfos_job.errors import AccessError, BadDataError, MissingInputError, SettingsError
from tfos_job.formats import readers
from tfos_job.inference import ink, saved_model
from tfos_job.inference import pictures as given
from tfos_job.inference.answer import Answer, Guess, NoAnswer
from tfos_job.inference.graph import network_function
from tfos_job.inference.ink_statistics import InkStatistics
from tfos_job.inference.pictures import Picture, Request
from tfos_job.input.decoding import preprocess, preprocess_all
from tfos_job.layout import RunLayout
from tfos_job.networks.variables import form_of, restore_model
from tfos_job.run import checkpoints, exports, own_network
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.run.model_digest import model_digest

_FEW = 16  # classes of an answer; up to this number as many passes are quicker than a sort
_NOT_ONE_CALL = 4  # pictures, of which a call of three operations each is quicker than one of a graph for all
_SMALL_BYTES = 1 << 16  # of a picture that may wait for others as it is


class Seen(NamedTuple):
    """A picture as the network sees it.

    Attributes:
      answer: what is known without the network.
      pixels: uint8 [h, w, C]; of a large picture in the size of the network's images, [S, S, C].
    """

    answer: Answer
    pixels: np.ndarray

    def with_top(self, top: tuple[Guess, ...]) -> Answer:
        """The whole answer, with what the network says."""
        return dataclasses.replace(self.answer, top=top)


class Predictor:
    """A run's network, loaded once, that names the classes of pictures. Threads may share it.

    Who makes batches of pictures from many callers takes its three steps one by one: `see`, `probabilities_of`, `tops`.

    Args:
      train_dir: folder of the run.
      checkpoint: `last`, `best` or the path of a checkpoint's folder.
      raw_image: do not look for the ink: take each picture as `convert` would store it. Ignored for runs on folders of
        images.
      model_name: the run's own network, `package.module:function`, which is Python that is imported and called; needed
        for a run of such a network, since the run's folder may be somebody else's.

    Attributes:
      checkpoint: the path of the checkpoint's folder.
      step: of the checkpoint.
      classes: the characters, or names, of the classes in the order of their ids.
      digest: SHA-256 over weights, classes and preprocessing (`run/model_digest.py`).
      form: of the images that the network takes.
      on_paper: whether it knows ink on paper; its ink is looked for unless `raw_image` is given.
      ink: how the ink of its training pictures looks, for who draws such pictures; None if it is not known. An export
        knows.

    Raises:
      MissingInputError: there is no checkpoint.
      BadDataError: the checkpoint is damaged.
      SettingsError: the network of that name is not the one of the checkpoint any more, or it is Python that
        `model_name` does not name.
    """

    def __init__(
        self,
        train_dir: str | os.PathLike[str],
        checkpoint: str | os.PathLike[str] = "last",
        raw_image: bool = False,
        model_name: str | None = None,
    ) -> None:
        info, arrays = checkpoints.read_network(RunLayout(os.fspath(train_dir)), os.fspath(checkpoint))
        self._restore(info, arrays, raw_image, model_name)

    @classmethod
    def restored(
        cls,
        info: CheckpointInfo,
        arrays: Mapping[str, np.ndarray],
        *,
        raw_image: bool = False,
        model_name: str | None = None,
    ) -> Predictor:
        """The predictor of a checkpoint that has been read."""
        made = cls.__new__(cls)
        made._restore(info, arrays, raw_image, model_name)
        return made

    @classmethod
    def exported(cls, export_dir: str | os.PathLike[str], raw_image: bool = False) -> Predictor:
        """The predictor of an exported network, whose files are proved first. `checkpoint` is the version's folder.

        Args:
          export_dir: folder of a version, or of several: the highest one is taken.
          raw_image: as of a run.

        Raises:
          MissingInputError: there is none.
          BadDataError: it is damaged.
        """
        info = exports.read(exports.resolve(os.fspath(export_dir)))
        made = cls.__new__(cls)
        made._network = saved_model.load(info)
        exports.require_network(info)
        made.checkpoint, made.step, made.classes = info.path, info.step, info.classes
        made.digest, made.form = info.digest, info.form
        made.ink = None if info.ink is None else InkStatistics.from_json(info.ink)
        made._take(on_paper=info.on_paper, raw_image=raw_image)
        return made

    def _restore(
        self, info: CheckpointInfo, arrays: Mapping[str, np.ndarray], raw_image: bool, model_name: str | None
    ) -> None:
        own_network.require_named(info, model_name)
        self.checkpoint, self.step = info.path, info.step
        self.classes = tuple(info.characters)
        self.digest = model_digest(info, arrays)
        self.ink: InkStatistics | None = None
        self.form = form_of(info)
        self._network = network_function(restore_model(info, arrays, model_name), self.form)
        self._take(on_paper=readers.resolve(None, info.dataset_name, info.path).on_paper, raw_image=raw_image)

    def _take(self, *, on_paper: bool, raw_image: bool) -> None:
        self.on_paper = on_paper
        self._seeks_ink = on_paper and not raw_image
        of_any_sizes = [tf.TensorSpec([None], tf.uint8), tf.TensorSpec([None, 2], tf.int32)]
        resize = functools.partial(preprocess_all, form=self.form)
        self._preprocess_all = tf.function(resize, of_any_sizes, autograph=False)

    def predict(self, pictures: Iterable[Picture], top_k: int = 3) -> list[dict[str, Any]]:
        """The most probable classes of pictures, as `tfos-job predict` prints them.

        Args:
          pictures: each a path or URL, the bytes of a PNG, JPEG or GIF, an array (uint8 [h, w] of grey, 0 black, or
            [h, w, 3] of RGB) or a Pillow image. They may be mixed, and more than fit the memory at once if an iterator
            makes them.
          top_k: number of classes; all of them if there are fewer.

        Returns:
          A dictionary for each picture, in order. `image` is its path, else `pictures[N]`. `top` has the most probable
          classes first, each with `character`, `class_id` and `probability`; `step` is the checkpoint's. `inverted`
          is true if bright ink on dark was turned over, and `box` is where ink was found: left, top, right, bottom.
          `doubtful`, if it is there, says why the picture may show no character: then `top` is empty, and `guesses` has
          what the network would say, except of a blank one. A file that cannot be read has `image` and `error` alone.

        Raises:
          SettingsError: an object is of another type, or an array of another shape; `pictures` is one picture; `top_k`
            is no number of 1 or more.
          StorageError: a file system has failed.
        """
        if not isinstance(top_k, int) or top_k < 1:
            raise SettingsError(f"{top_k!r} is not a whole number of 1 or more", place="top_k")
        return [answer.to_json() for answer in self.answers(given.requests_of(pictures), top_k)]

    def answers(self, requests: Iterable[Request], top_k: int) -> Iterator[Answer | NoAnswer]:
        """The same, each as soon as its batch is computed."""
        coming = iter(requests)
        while batch := list(itertools.islice(coming, PREDICTED_BATCH)):
            seen = [self.see(request) for request in batch]
            found = [one.pixels for one in seen if isinstance(one, Seen)]
            tops = iter(self.tops(self.probabilities_of(found), top_k) if found else ())
            for one in seen:
                yield one.with_top(next(tops)) if isinstance(one, Seen) else one

    def see(self, request: Request, *, raw_image: bool = False) -> Seen | Answer | NoAnswer:
        """A picture as the network sees it, or the answer that needs no network.

        Args:
          request: the picture.
          raw_image: do not look for the ink of this one either.

        Raises:
          SettingsError: it is an object of another type, or an array of another shape.
          StorageError: a file system has failed.
        """
        seeks_ink = self._seeks_ink and not raw_image
        try:
            pixels = given.read(request, num_channels=1 if seeks_ink else self.form.num_channels)
        except (AccessError, BadDataError, MissingInputError) as error:
            return NoAnswer(request.name, error)
        answer = Answer(image=request.name, step=self.step, top=())
        if seeks_ink:
            found = ink.find(pixels[:, :, 0])
            answer = dataclasses.replace(answer, inverted=found.inverted, doubtful=found.doubtful)
            if found.doubtful == ink.BLANK:  # any network would be sure of something
                return answer
            answer = dataclasses.replace(answer, box=found.box)
            pixels = np.repeat(found.pixels[:, :, np.newaxis], self.form.num_channels, axis=2)
        return Seen(answer, pixels if pixels.size <= _SMALL_BYTES else self.images([pixels])[0])

    def images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """What the network is given of pictures.

        Args:
          pictures: n ≥ 1, each uint8 [h, w, C].

        Returns:
          uint8 [n, S, S, C].
        """
        if all(picture.shape == self.form.shape for picture in pictures):
            return np.stack(pictures)
        if len(pictures) <= _NOT_ONE_CALL and not self.form.antialias:
            each = [preprocess(tf.constant(picture[np.newaxis]), self.form) for picture in pictures]
            return np.concatenate([image.numpy() for image in each])
        sizes = np.array([picture.shape[:2] for picture in pictures], np.int32)
        found: np.ndarray = self._preprocess_all(np.concatenate(list(map(np.ravel, pictures))), sizes).numpy()
        return found

    def probabilities_of(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """The softmax probabilities of all classes for pictures of different sizes.

        Args:
          pictures: n ≥ 1, each uint8 [h, w, C], as `see` makes them, or float32 [S, S, C], levels from 0 to 255.

        Returns:
          float32 [n, num_classes].
        """
        if all(picture.dtype == np.uint8 for picture in pictures):
            return self.probabilities(self.images(pictures))
        levels = [one if one.dtype != np.uint8 else self.images([one])[0].astype(np.float32) for one in pictures]
        return self.probabilities(np.stack(levels))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The softmax probabilities of all classes.

        Args:
          images: uint8 [n, S, S, C], n ≥ 1, as `images` makes them, or float32 of the same levels.

        Returns:
          float32 [n, num_classes].
        """
        found: np.ndarray = self._network(tf.cast(images, tf.float32)).numpy()
        return found

    def tops(self, probabilities: np.ndarray, top_k: int) -> list[tuple[Guess, ...]]:
        """The most probable classes of each row of [n, num_classes], first of equals the one of the lower id."""
        found = _largest(probabilities, min(top_k, probabilities.shape[1]))
        values = np.take_along_axis(probabilities, found, axis=1)
        return [
            tuple(Guess(self.classes[i], i, p) for i, p in zip(*row, strict=True))
            for row in zip(found.tolist(), values.tolist(), strict=True)
        ]


def _largest(rows: np.ndarray, k: int) -> np.ndarray:
    """The positions of the k largest values of each row, int64 [n, k], the first of equals first.

    `tf.math.top_k` takes ten times as long.
    """
    if k > _FEW:
        return np.argsort(-rows, axis=1, kind="stable")[:, :k]
    left, found, each = rows.copy(), np.empty((len(rows), k), np.int64), np.arange(len(rows))
    for at in range(k):
        found[:, at] = left.argmax(axis=1)
        left[each, found[:, at]] = -np.inf
    return found
