"""`rollback`: an earlier promoted network under a new, higher number, in this process. No TensorFlow: it is quick."""

from __future__ import annotations

from typing import Any

import msgspec

import tfos_job
from tfos_job import storage
from tfos_job.config import RollbackConfig
from tfos_job.config.flags import to_dict
from tfos_job.errors import MissingInputError
from tfos_job.layout import RegistryLayout
from tfos_job.lease import Lease
from tfos_job.run import exports, lineage, model_registry
from tfos_job.run.promotion_entry import ROLLED_BACK, PromotionEntry


def rollback(config: RollbackConfig) -> dict[str, Any]:
    """Publishes an earlier version's files again, and withdraws the current model: `promote` keeps it out from now on.

    A rollback that was ended before it had written all of `current` and history is finished, and not done twice.

    Args:
      config: registry, version and reason.

    Returns:
      `version` and its folder `path`; `restores`, the version whose files these are; `parent`, which was rolled back
      from; `digest` and `step` of the model; `reason`; `already_rolled_back`.

    Raises:
      BadDataError: that version or the registry is damaged.
      BusyError: another command is at work on the registry.
      MissingInputError: there is no such version, or none before the current one.
      StorageError: a file system has failed.
    """
    registry = RegistryLayout(config.registry_dir)
    if not storage.is_dir(registry.root):
        raise MissingInputError("no registry there", place=registry.root, next_step="Look at --registry_dir")
    with Lease(registry.lock, "tfos-job rollback") as lease:
        current, finished = model_registry.recover(registry)
        if current is None:
            raise MissingInputError(
                "no model was promoted there",
                place=registry.root,
                next_step="`tfos-job promote` promotes the first one",
            )
        is_finished = finished and config.to is None and current.kind == ROLLED_BACK
        if is_finished or (config.to is not None and config.to in (current.version, current.restores)):
            return _result(registry, current, already=True)
        number = _before(registry, current) if config.to is None else config.to
        if not storage.is_dir(registry.version(number)):
            raise MissingInputError(
                f"version {number} is not there",
                place=registry.version(number),
                next_step="Give another one with --to; `tfos-job history` has those that there were",
            )
        target = model_registry.entry_of(registry, number)
        source = exports.read(registry.version(number))
        entry = model_registry.publish(registry, source, _entry(config, current, target), guard=lease.check)
    return _result(registry, entry, already=False)


def _before(registry: RegistryLayout, current: PromotionEntry) -> int:
    """The version that was the current one before this model was promoted."""
    number = model_registry.before(registry, current)
    if number is None:
        raise MissingInputError(
            f"no model was promoted before that of version {current.version}",
            place=registry.root,
            next_step="Name a version with --to; `tfos-job history` has all of them",
        )
    return number


def _entry(config: RollbackConfig, current: PromotionEntry, target: PromotionEntry) -> PromotionEntry:
    """The target's entry, as that of a rollback from the current version."""
    withdrawn = dict(current.withdrawn)
    if current.version is not None and current.model.digest != target.model.digest:
        withdrawn[current.model.digest] = current.version
    withdrawn.pop(target.model.digest, None)
    return msgspec.structs.replace(
        target,
        kind=ROLLED_BACK,
        parent=current.version,
        restores=target.version,
        time=lineage.now(),
        who=lineage.who(),
        reason=config.reason,
        forced=False,
        code={**target.code, "package_version": tfos_job.__version__},
        environment=lineage.environment(),
        flags={**target.flags, "rollback": to_dict(config)},
        gate=None,
        withdrawn=withdrawn,
    )


def _result(registry: RegistryLayout, entry: PromotionEntry, *, already: bool) -> dict[str, Any]:
    assert entry.version is not None
    return {
        "version": entry.version,
        "path": registry.version(entry.version),
        "restores": entry.restores,
        "parent": entry.parent,
        "digest": entry.model.digest,
        "step": entry.model.step,
        "reason": entry.reason,
        "already_rolled_back": already,
    }
