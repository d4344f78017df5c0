"""The flags of `pipeline`."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from tfos_job.config.flags import Flags, flag, path
from tfos_job.config.recipes import RECIPES
from tfos_job.errors import FlagError


def _section(stage: str) -> Any:
    return flag(
        f"flags of `{stage}`, each as NAME=VALUE or, of a switch, NAME; in a file a section of them",
        (),
        metavar="NAME=VALUE",
    )


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(Flags):
    """`pipeline`: from new GNT files to a promoted model, or to a current one that is kept."""

    gnt_dir: str = path("folder of the GNT files to train on; new ones are converted")
    eval_gnt_dir: str = path("folder of the frozen GNT files, by which models are judged; never trained on")
    work_dir: str = path("folder of the dataset, the runs, the staged exports and the pipeline's own records")
    registry_dir: str = path("folder of the promoted networks (`promote --registry_dir`)")
    run_id: str | None = flag(
        "name of this run, such as the scheduler's logical date: the same one again goes on with what is left of it "
        "(default: today's date, UTC)",
        None,
        metavar="ID",
    )
    recipe: str | None = flag("`train --recipe`", None, metavar="NAME", names=tuple(RECIPES))
    from_scratch: bool = flag("train from fresh weights, not from those of the promoted model", False)
    promote_older: bool = flag(
        "let a run that is older than the promoted one take its place, if the gate lets it", False
    )
    dry_run: bool = flag("print which stages would run, with their command lines, and why; change nothing", False)
    convert: tuple[str, ...] = _section("convert")
    verify: tuple[str, ...] = _section("verify")
    train: tuple[str, ...] = _section("train")
    evaluate: tuple[str, ...] = _section("evaluate")
    export: tuple[str, ...] = _section("export")
    gate: tuple[str, ...] = _section("promote")

    def __post_init__(self) -> None:
        super().__post_init__()
        text = self.run_id or ""
        if text.strip() != text or any(unicodedata.category(character) == "Cc" for character in text):
            fact = f"{text!r} begins or ends with a blank, or has a control character"
            raise FlagError(fact, place="--run_id", next_step="Give a word, such as a date")
