"""Whether the Python that a run names may be imported: a run's folder may be somebody else's. No TensorFlow here."""

from __future__ import annotations

from tfos_job import storage
from tfos_job.config import NETWORKS
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoints
from tfos_job.run.checkpoint_files import CheckpointInfo, misfit, read_info

_KINDS: dict[str, type | tuple[type, ...]] = {"model": dict, "characters": (str, list)}


def require_named(info: CheckpointInfo, model_name: str | None) -> None:
    """Refuses a checkpoint of a user's own network, `package.module:function`, unless the user has named it too.

    Args:
      info: of the checkpoint.
      model_name: what the user has named; None for nothing.

    Raises:
      SettingsError: the network is Python that nobody has named, or another one than that.
      BadDataError: the checkpoint names no network, or no classes.
    """
    fact = misfit(info.document, _KINDS) or misfit(info.model, {"model_name": str})
    if fact:
        raise BadDataError(f"names no network: {fact}", place=info.path, next_step="Use another checkpoint")
    recorded = info.model["model_name"]
    if model_name is not None and recorded != model_name:
        raise SettingsError(
            f"{info.path} is of the network {recorded!r}",
            place=f"--model_name {model_name}",
            next_step="Leave it out" if recorded in NETWORKS else "Give that one if you trust it: it is Python",
        )
    if model_name is None and recorded not in NETWORKS:
        raise SettingsError(
            f"its network is the function {recorded!r}, Python that would be imported and called",
            place=info.path,
            next_step=f"If it is your own, or you trust it, give --model_name {recorded} (model_name= in a program)",
        )


def is_own(run: RunLayout, which: str) -> bool:
    """Whether the checkpoint that `--checkpoint` names is of a network that is not this package's.

    Raises:
      MissingInputError: there is none.
    """
    info = _first(run, which)
    model = None if info is None else info.document.get("model")
    return isinstance(model, dict) and model.get("model_name") not in list(NETWORKS)


def check(run: RunLayout, which: str, model_name: str | None) -> None:
    """The same of the checkpoint that `--checkpoint` names, before it is read: of its document alone.

    Raises:
      MissingInputError: there is none.
    """
    info = _first(run, which)
    if info is not None:
        require_named(info, model_name)


def _first(run: RunLayout, which: str) -> CheckpointInfo | None:
    checkpoints.require(run, which)
    for path in checkpoints.named(run, which):
        if storage.is_dir(path):
            try:
                return read_info(path)
            except BadDataError:  # an older one is taken, or none; whoever reads it says so
                continue
    return None
