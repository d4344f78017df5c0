"""The model that answers, chosen without TensorFlow: a checkpoint of a run, or an exported version."""

from __future__ import annotations

from tfos_job import storage
from tfos_job.errors import SettingsError
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoints, exports, own_network
from tfos_job.run.model_digest import model_digest
from tfos_job.scoring.plan import Model


def find(train_dir: str | None, checkpoint: str, export_dir: str | None, model_name: str | None = None) -> Model:
    """The model that one of the two folders names.

    Raises:
      MissingInputError: there is none.
      BadDataError: it is damaged.
      SettingsError: both folders, or none; this version has no reader as it was trained with; or its network is
        Python that `model_name` does not name.
    """
    if (train_dir is None) == (export_dir is None):
        raise SettingsError("one of them is needed", place="train_dir or export_dir")
    return of_export(export_dir) if export_dir is not None else of_run(train_dir or "", checkpoint, model_name)


def of_run(train_dir: str, checkpoint: str, model_name: str | None = None) -> Model:
    """The model of a checkpoint, which is read whole and proved."""
    run = RunLayout(storage.absolute(train_dir))
    info, arrays = checkpoints.read_network(run, checkpoint)
    own_network.require_named(info, model_name)
    return Model(
        train_dir=run.root,
        model_name=model_name,
        checkpoint=storage.absolute(info.path),
        digest=model_digest(info, arrays),
        step=info.step,
    )


def of_export(export_dir: str) -> Model:
    """The model of an exported version; its files are proved by each process that loads them."""
    info = exports.read(exports.resolve(storage.absolute(export_dir)))
    return Model(export_dir=info.path, digest=info.digest, step=info.step)
