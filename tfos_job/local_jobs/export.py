"""`export`: a checkpoint as a network that needs nothing of this package, in this process.

What can be known without TensorFlow is known before it is loaded: the checkpoint is read, and compared with the newest
version.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import tfos_job
from tfos_job import storage
from tfos_job.config import NETWORKS, ExportConfig
from tfos_job.config.defaults import SAVED_MODEL
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats import readers
from tfos_job.inference.training_pictures import TrainingPictures
from tfos_job.layout import ExportLayout, RunLayout
from tfos_job.lease import Lease
from tfos_job.run import checkpoints, exports, own_network
from tfos_job.run.checkpoint_files import Arrays, CheckpointInfo
from tfos_job.run.exports import ExportInfo
from tfos_job.run.model_digest import PREPROCESSING_VERSION, model_digest

_NUM_RANDOM = 32  # pictures that are made where there are none
_SEED = 0  # of these

_log = logging.getLogger(__name__)


def export(config: ExportConfig, *, load_tensorflow: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Publishes the next version of an exported network, unless the newest one is the same.

    Args:
      config: run, checkpoint and folder of the versions.
      load_tensorflow: called before TensorFlow is imported; not if nothing is to be done.

    Returns:
      `version`, its folder `path`, `digest`, `step`, and `already_exported`.

    Raises:
      MissingInputError: there is no checkpoint.
      BadDataError: the checkpoint is damaged.
      BusyError: another `export` is at work there.
      SettingsError: the network of that name is not the one of the checkpoint any more, or it is Python that
        `config.model_name` does not name; or the folder is a registry.
      StorageError: a file system has failed; nothing is published.
    """
    run = None if config.train_dir is None else RunLayout(config.train_dir)
    export = ExportLayout(config.export_dir)
    exports.refuse_registry(export)
    if run is None:
        load_tensorflow()
        info, arrays = _pretrained(config)
    else:
        info, arrays = checkpoints.read_network(run, config.checkpoint)
        own_network.require_named(info, config.model_name)
    digest = model_digest(info, arrays)
    with Lease(export.lock, "tfos-job export") as lease:
        trained_on = None if run is None else TrainingPictures(run, info)
        ink = None if trained_on is None or trained_on.ink is None else trained_on.ink.to_json()
        published = _standing(export, config, digest, len(info.characters), ink)
        is_new = published is None
        if published is not None:
            _log.info("%s is already exported as %s", info.path, published.path)
        else:
            load_tensorflow()
            with tempfile.TemporaryDirectory(prefix="tfos_job-") as folder:
                described = _write(folder, trained_on, info, arrays, config)
                document = {**_document(run, info), **described, "ink": ink, "digest": digest}
                published = exports.publish(export, folder, document, lease.check)
            _log.info("exported %s as %s", info.path, published.path)
        if config.keep_versions is not None:
            exports.retain(export, config.keep_versions)
    return _result(published, already_exported=not is_new)


def _pretrained(config: ExportConfig) -> tuple[CheckpointInfo, Arrays]:
    """A network that others have trained."""
    from tfos_job.networks import pretrained

    assert config.weights is not None
    assert config.labels is not None
    image_size = config.image_size or NETWORKS[pretrained.MODEL_NAME]
    return pretrained.read(config.weights, config.labels, image_size)


def _result(info: ExportInfo, *, already_exported: bool) -> dict[str, Any]:
    place = {"version": info.version, "path": info.path, "digest": info.digest, "step": info.step}
    return {**place, "already_exported": already_exported}


def _standing(
    export: ExportLayout, config: ExportConfig, digest: str, num_classes: int, ink: Mapping[str, Any] | None
) -> ExportInfo | None:
    """The newest version if it is whole and what is to be exported; older ones do not count, nobody serves them.

    Ink that cannot be measured, as where the dataset is gone by now, makes no other version.
    """
    number = exports.newest(export)
    if number is None:
        return None
    try:
        info = exports.read(export.version(number))
        is_same = (info.digest, info.document["top_k"]) == (digest, min(config.top_k, num_classes))
        is_same = is_same and ink in (None, info.ink)
        if is_same and set(config.all_formats) <= set(info.document["formats"]):
            exports.prove(info)
            return info
    except BadDataError as error:
        _log.warning("exported again: %s", error)
    return None


def _write(
    folder: str,
    trained_on: TrainingPictures | None,
    info: CheckpointInfo,
    arrays: Mapping[str, np.ndarray],
    config: ExportConfig,
) -> dict[str, Any]:
    """Writes and proves the files of a version; returns what `export.json` has of them."""
    from tfos_job.inference import portable, saved_model
    from tfos_job.inference.parity import batches
    from tfos_job.inference.predictor import Predictor
    from tfos_job.networks.variables import restore_model

    own = config.model_name if config.train_dir is not None else None
    predictor = Predictor.restored(info, arrays, model_name=own)
    model, form, num_classes = restore_model(info, arrays, own), predictor.form, len(predictor.classes)
    top_k = min(config.top_k, num_classes)
    records, pictures = "training pictures", None if trained_on is None else trained_on.images(form)
    if pictures is None or not len(pictures):
        records = "random pixels"
        pictures = np.random.default_rng(_SEED).integers(0, 256, (_NUM_RANDOM, *form.shape), np.uint8)
    expected = np.concatenate([predictor.probabilities(part) for part in batches(pictures)])
    formats = {}
    for name in config.all_formats:
        if name == SAVED_MODEL:
            written = saved_model.write(folder, model, predictor.classes, form, top_k)
            proof = saved_model.prove(folder, pictures, expected)
        else:
            written = portable.write(folder, name, model, num_classes, form)
            proof = portable.prove(folder, name, pictures, expected)
        formats[name] = {**written, "parity": {"records": records, **proof}}
    return {"top_k": top_k, "formats": formats}


def _document(run: RunLayout | None, info: CheckpointInfo) -> dict[str, Any]:
    """What `export.json` has of the checkpoint."""
    import keras
    import tensorflow as tf

    reader = readers.resolve(None, info.dataset_name, info.path)
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "package_version": tfos_job.__version__,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__},
        "step": info.step,
        "checkpoint": storage.absolute(info.path),
        "checkpoint_digest": info.document["document_sha256"],
        "model": info.model,
        "classes": list(info.characters),
        "charset_digest": info.charset_digest,
        "dataset_name": info.dataset_name,
        "dataset_digest": info.dataset_digest,
        "preprocessing": {
            "version": PREPROCESSING_VERSION,
            "image_size": info.model["image_size"],
            "num_channels": info.model["num_channels"],
            "antialias": reader.antialias,
            "on_paper": reader.on_paper,
            "normalization": info.normalization,
        },
        "metrics": {"training": info.document["metrics"], "evaluations": _evaluations(run, info)},
    }


def _evaluations(run: RunLayout | None, info: CheckpointInfo) -> dict[str, Any]:
    """What the run has counted of the checkpoint, by split."""
    if run is None or storage.absolute(info.path) != storage.absolute(run.checkpoint(info.step)):
        return {}
    beginning, ending = run.evaluation(info.step, "").rpartition("/")[2].removesuffix(".json"), ".json"
    found = {}
    try:
        for entry in storage.list_dir(run.evaluation_dir):
            if entry.name.startswith(beginning) and entry.name.endswith(ending):
                found[entry.name.removeprefix(beginning).removesuffix(ending)] = storage.read_json(entry.path)
    except MissingInputError:
        pass  # none so far
    except ValueError as error:
        _log.warning("an evaluation of step %d is left out, it is no JSON: %s", info.step, error)
    return found
