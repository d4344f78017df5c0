"""The flags of the commands on a registry: `promote`, `rollback` and `history`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.flags import Flags, flag, path, require

TABLE, JSON = "table", "json"
_REGISTRY = "folder of the promoted networks, in TensorFlow Serving's layout; local or on HDFS"


@dataclass(frozen=True, kw_only=True)
class PromoteConfig(Flags):
    """`promote`: an exported network to where servers look, if it is good enough."""

    registry_dir: str = path(f"{_REGISTRY}. Nothing but promotions may publish there")
    export_dir: str = path(
        "the candidate: folder of exported versions, of which the highest is taken, or of one version"
    )
    predictions: str = path(
        "the candidate's predictions for the frozen set, which `evaluate` has written: "
        "TRAIN_DIR/evaluation/step-…-SPLIT.npz",
        metavar="FILE",
    )
    min_top_1: float | None = flag(
        "the floor: share of the frozen set that the candidate must be right about (default: any)",
        None,
        minimum=0.0,
        maximum=1.0,
    )
    max_class_loss: float | None = flag(
        "share of a class's records by which it may be right less often than the current model (default: any)",
        None,
        minimum=0.0,
        maximum=1.0,
    )
    min_class_records: int = flag("with --max_class_loss: classes with fewer records are not looked at", 30, minimum=1)
    accept_frozen_set: bool = flag(
        "take another frozen set than the current model's; the floor alone decides then", False
    )
    accept_charset: bool = flag(
        "take other classes than the current model's, and with them another frozen set; the floor alone decides then",
        False,
    )
    force: bool = flag("promote a candidate that the gate would keep out; needs --reason", False)
    reason: str | None = flag("with --force: why, for the history", None, metavar="TEXT")
    require_promotion: bool = flag("fail (65) if the current model is kept", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.force or self.reason is not None, "force", "given without --reason", "Say why, for the history"
        )
        require(self.force or self.reason is None, "reason", "given without --force", "The gate's reason is recorded")


@dataclass(frozen=True, kw_only=True)
class RollbackConfig(Flags):
    """`rollback`: an earlier promoted network, under a new and higher number."""

    registry_dir: str = path(_REGISTRY)
    to: int | None = flag(
        "version to publish again (default: the model before the current one)", None, minimum=1, metavar="N"
    )
    reason: str = flag("why, for the history", metavar="TEXT")


@dataclass(frozen=True, kw_only=True)
class HistoryConfig(Flags):
    """`history`: what was promoted, kept out and rolled back, when, by whom and why."""

    registry_dir: str = path(_REGISTRY)
    format: str = flag("a table, or all that is known as a JSON list", TABLE, choices=(TABLE, JSON))
