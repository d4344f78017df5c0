"""A model that may be promoted: an export, and the predictions of an evaluation of that very model."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

import tfos_job
from tfos_job import storage
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.layout import EXPORT_DOCUMENT, RegistryLayout
from tfos_job.run import exports, kept_predictions, lineage
from tfos_job.run.exports import ExportInfo
from tfos_job.run.kept_predictions import KeptPredictions
from tfos_job.run.promotion_entry import FrozenSet, Model, PromotionEntry

_NEEDED = (
    *("checkpoint", "checkpoint_digest", "charset_digest", "classes", "dataset_digest", "dataset_name", "digest"),
    *(
        "document_sha256",
        "files",
        "formats",
        "ink",
        "metrics",
        "package_version",
        "step",
        "top_k",
        "version",
        "versions",
    ),
)


class Candidate(NamedTuple):
    """An export, its predictions for the frozen set, and the bytes of the predictions' file."""

    export: ExportInfo
    kept: KeptPredictions
    data: bytes

    @property
    def model(self) -> Model:
        document = self.export.document
        return Model(
            digest=self.export.digest,
            step=self.export.step,
            charset_digest=document["charset_digest"],
            num_classes=len(self.export.classes),
            top_k=document["top_k"],
            formats=sorted(document["formats"]),
            has_ink=document["ink"] is not None,
        )

    @property
    def frozen_set(self) -> FrozenSet:
        header = self.kept.header
        return FrozenSet(
            digest=header.dataset_digest,
            dataset_dir=header.dataset_dir,
            split=header.split,
            num_records=self.kept.predictions.num_records,
        )


def read(registry: RegistryLayout, export_dir: str, predictions: str) -> Candidate:
    """Reads a candidate, and proves that export and predictions are of one model.

    Raises:
      BadDataError: one of them is damaged.
      MissingInputError: one of them is not there.
      SettingsError: they are of different models, the evaluation was on the records that the model was trained on, or
        the export is one of the registry's own versions.
    """
    info = exports.read(exports.resolve(export_dir))
    root = storage.absolute(registry.root).rstrip("/")
    if f"{storage.absolute(info.path)}/".startswith(f"{root}/"):
        raise SettingsError(
            "is in the registry already", place=info.path, next_step="`tfos-job rollback --to N` publishes it again"
        )
    missing = [name for name in _NEEDED if name not in info.document]
    if missing:
        raise BadDataError(f"{EXPORT_DOCUMENT} has no {missing[0]}", place=info.path, next_step="Export it again")
    kept, data = kept_predictions.read(predictions)
    header, found = kept.header, Candidate(info, kept, data)
    if header.model_digest != info.digest:
        raise SettingsError(
            f"predictions of the model {header.model_digest}, and {info.path} is the model {info.digest}",
            place=predictions,
            next_step="Evaluate the checkpoint that was exported, or export the one that was evaluated",
        )
    if header.dataset_digest == info.document["dataset_digest"]:
        raise SettingsError(
            f"predictions for the records that the model was trained on (split {header.split} of {header.dataset_dir})",
            place=predictions,
            next_step="Evaluate it on a split that no model is trained on",
        )
    try:
        msgspec.convert(msgspec.to_builtins(found.model), Model)
    except (TypeError, msgspec.ValidationError) as error:
        fact = f"{EXPORT_DOCUMENT} is not what `export` writes: {error}"
        raise BadDataError(fact, place=info.path, next_step="Export it again") from error
    if header.num_classes != found.model.num_classes:
        fact = f"predictions of {header.num_classes} classes, and the model has {found.model.num_classes}"
        raise BadDataError(fact, place=predictions, next_step="Evaluate it again")
    return found


def why_alone(candidate: Candidate, current: PromotionEntry | None, *, other_set: bool, other_charset: bool) -> str:
    """Why the candidate cannot be compared with the current model, in words; empty if it can be.

    Args:
      candidate: what is to be promoted.
      current: the entry of the current model; None if there is none.
      other_set: whether another frozen set than the current model's is accepted.
      other_charset: whether other classes are, which come with another frozen set.

    Raises:
      SettingsError: the frozen set or the classes are other ones, and that is not accepted.
    """
    if current is None:
        return "no model was promoted before"
    place, charset = candidate.export.path, candidate.model.charset_digest
    if charset != current.model.charset_digest:
        fact = f"charset {charset}, and that of the current model, version {current.version}, is"
        if not other_charset:
            raise SettingsError(
                f"{fact} {current.model.charset_digest}",
                place=place,
                next_step="Train with the same charset, or accept the new one by --accept_charset, once",
            )
        return "the current model has another charset"
    frozen, known = candidate.frozen_set, current.frozen_set
    if frozen.digest != known.digest:
        if not other_set:
            raise SettingsError(
                f"evaluated on the split {frozen.split} of {frozen.dataset_dir}, whose digest is {frozen.digest}; the "
                f"frozen set of the registry is {known.split} of {known.dataset_dir}, {known.digest}",
                place=place,
                next_step="Evaluate on that one, or accept the new one by --accept_frozen_set, once",
            )
        return "the current model was evaluated on another frozen set"
    return ""


def is_current(candidate: Candidate, current: PromotionEntry | None) -> bool:
    """Whether servers answer as the candidate does already, and the registry is bound to its frozen set."""
    if current is None:
        return False
    return (candidate.model, candidate.frozen_set.digest) == (current.model, current.frozen_set.digest)


def entry(
    candidate: Candidate, current: PromotionEntry | None, *, kind: str, reason: str, forced: bool, **facts: Any
) -> PromotionEntry:
    """The entry of the history about a candidate, without version and predictions.

    Args:
      candidate: what is promoted, or kept out.
      current: the entry of the current model; None if there is none.
      kind, reason, forced: see `PromotionEntry`.
      **facts: `gate`, and `flags`: those of the command.
    """
    document, header = candidate.export.document, candidate.kept.header
    withdrawn = {} if current is None else current.withdrawn
    return PromotionEntry(
        kind=kind,  # type: ignore[arg-type]
        version=None,
        parent=None if current is None else current.version,
        restores=None,
        time=lineage.now(),
        who=lineage.who(),
        reason=reason,
        forced=forced,
        model=candidate.model,
        frozen_set=candidate.frozen_set,
        training={
            "dataset_name": document["dataset_name"],
            "dataset_digest": document["dataset_digest"],
            "metrics": document["metrics"],
        },
        source={
            "path": storage.absolute(candidate.export.path),
            "version": candidate.export.version,
            "document_sha256": document["document_sha256"],
            "checkpoint": document["checkpoint"],
            "checkpoint_digest": document["checkpoint_digest"],
        },
        code={
            "package_version": tfos_job.__version__,
            "export_package_version": document["package_version"],
            "export_versions": document["versions"],
            "evaluation_package_version": header.package_version,
        },
        environment=lineage.environment(),
        flags={"promote": facts["flags"], "train": header.train_flags},
        metrics=dict(header.metrics),
        gate=facts["gate"],
        predictions=None,
        withdrawn={digest: number for digest, number in withdrawn.items() if digest != candidate.model.digest},
    )
