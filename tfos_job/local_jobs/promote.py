"""`promote`: an exported network to where servers look, if it is good enough, in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tfos_job.config import PromoteConfig
from tfos_job.config.flags import to_dict
from tfos_job.errors import BadDataError
from tfos_job.layout import RegistryLayout
from tfos_job.lease import Lease
from tfos_job.run import candidate as candidates
from tfos_job.run import gate, model_registry
from tfos_job.run.candidate import Candidate
from tfos_job.run.promotion_entry import KEPT, PROMOTED, PromotionEntry

_log = logging.getLogger(__name__)


def promote(
    config: PromoteConfig,
    *,
    load_tensorflow: Callable[[], None] = lambda: None,
    bless: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Promotes a candidate, or keeps the current model; either is recorded in the registry's history.

    Args:
      config: candidate, registry and gate.
      load_tensorflow: called before TensorFlow is imported; not if the current model is kept.
      bless: called with the folder that is to be published; raises if the network does not answer (default:
        `inference/blessing.py`).

    Returns:
      `decision`, `promoted` or `kept`; `reason` in words; `version` and `path` of the current model afterwards, None if
      there is none; `digest` and `step` of the candidate; `parent`, the version before; `forced`; `already_promoted`,
      whether the candidate was the current model before; `gate`, the tests as JSON, None if there was no need.

    Raises:
      BadDataError: the candidate is damaged or does not answer, or the registry is damaged.
      BusyError: another command is at work on the registry.
      MissingInputError: the export or the predictions are not there.
      SettingsError: export and predictions are of different models, or their frozen set or charset is not the current
        model's and that is not accepted.
      StorageError: a file system has failed.
    """
    registry = RegistryLayout(config.registry_dir)
    candidate = candidates.read(registry, config.export_dir, config.predictions)
    with Lease(registry.lock, "tfos-job promote") as lease:
        current = model_registry.recover(registry).newest
        why_alone = candidates.why_alone(
            candidate, current, other_set=config.accept_frozen_set, other_charset=config.accept_charset
        )
        if candidates.is_current(candidate, current):
            return _already(registry, candidate, current)
        judgement = _judge(config, registry, candidate, current, why_alone)
        withdrawn = _withdrawn(candidate, current)
        passed = judgement.passed and not withdrawn
        reason = withdrawn or judgement.reason
        entry = candidates.entry(
            candidate,
            current,
            kind=PROMOTED if passed or config.force else KEPT,
            reason=reason if passed or not config.force else f"forced: {config.reason} (the gate: {reason})",
            forced=config.force and not passed,
            gate=judgement.to_json(),
            flags=to_dict(config),
        )
        if entry.kind == PROMOTED:
            entry = model_registry.publish(
                registry,
                candidate.export,
                entry,
                candidate.data,
                bless=bless or (lambda folder: _bless(folder, load_tensorflow)),
                guard=lease.check,
            )
        else:
            model_registry.keep(registry, entry)
    is_first = current is None and bool(judgement.findings)  # as it should be
    for remark in judgement.remarks:
        _log.log(logging.INFO if is_first else logging.WARNING, "%s", remark)
    return _result(registry, candidate, entry)


def raise_if_kept(result: dict[str, Any]) -> None:
    """Raises BadDataError for a result of `promote` that is no promotion (`--require_promotion`)."""
    if result["decision"] == KEPT:
        raise BadDataError(
            f"the candidate was not promoted: {result['reason']}",
            place=f"model {result['digest'][:12]}",
            next_step="Train a better one, or overrule the gate with --force --reason",
        )


def _judge(
    config: PromoteConfig,
    registry: RegistryLayout,
    candidate: Candidate,
    current: PromotionEntry | None,
    why_alone: str,
) -> gate.Judgement:
    rule = gate.Rule(
        min_top_1=config.min_top_1,
        max_class_loss=config.max_class_loss,
        min_class_records=config.min_class_records,
    )
    is_comparable = current is not None and not why_alone
    before = model_registry.predictions_of(registry, current).predictions if current and is_comparable else None
    return gate.judge(candidate.kept.predictions, before, rule, candidate.export.classes, why_alone)


def _withdrawn(candidate: Candidate, current: PromotionEntry | None) -> str:
    """In words that this model was rolled back from; empty if it was not."""
    number = None if current is None else current.withdrawn.get(candidate.model.digest)
    return "" if number is None else f"this very model was version {number}, which was rolled back from"


def _already(registry: RegistryLayout, candidate: Candidate, current: PromotionEntry | None) -> dict[str, Any]:
    assert current is not None
    reason = f"it is the current model already, version {current.version}"
    found = _result(registry, candidate, current)
    return {**found, "decision": PROMOTED, "reason": reason, "already_promoted": True}


def _result(registry: RegistryLayout, candidate: Candidate, entry: PromotionEntry) -> dict[str, Any]:
    version = entry.parent if entry.kind == KEPT else entry.version
    return {
        "decision": entry.kind,
        "reason": entry.reason,
        "version": version,
        "path": None if version is None else registry.version(version),
        "digest": candidate.model.digest,
        "step": candidate.model.step,
        "parent": entry.parent,
        "forced": entry.forced,
        "already_promoted": False,
        "gate": entry.gate,
    }


def _bless(folder: str, load_tensorflow: Callable[[], None]) -> None:
    load_tensorflow()
    from tfos_job.inference.blessing import bless

    bless(folder)
