"""Which stages of a run are to be done, which are not, and why. Pure.

A stage's outcome follows from its inputs. So it is skipped if a record says that it was done with the same inputs, by
this run or by an earlier one, and what it made is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tfos_job.errors import exit_code_class
from tfos_job.pipeline.record import BEGUN, DONE, FAILED, RunRecord, StageRecord
from tfos_job.pipeline.stages import (
    CONVERT,
    FREEZE,
    PROMOTE,
    STAGES,
    TRAIN,
    Found,
    Known,
    Settings,
    Words,
    command_of,
    inputs_of,
)

_STOPPED = (130, 143)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What happens to a stage, and why.

    Attributes:
      runs: it is to be done; else its outcome is there.
      inputs: None if they follow from a stage that is still to be done.
      outputs: of a stage that is skipped.
      of_run: the run that has done it; None of a stage that is to be done.
      command: its command line without the program.
    """

    stage: str
    runs: bool
    why: str
    inputs: Mapping[str, str] | None
    outputs: Mapping[str, str] = field(default_factory=dict)
    of_run: str | None = None
    command: Words = ()


def may_go_on(stage: StageRecord | None) -> bool:
    """Whether a stage was begun and did not fail for good, so that the same command goes on with it."""
    if stage is None or stage.state not in (BEGUN, FAILED):
        return False
    code = stage.exit_code
    return stage.state == BEGUN or code in _STOPPED or (code is not None and exit_code_class(code).retryable)


def decide(
    stage: str,
    settings: Settings,
    found: Found,
    known: Known,
    own: RunRecord,
    earlier: Sequence[RunRecord],
    is_there: Callable[[str, StageRecord], bool],
) -> Decision:
    """Decides about a stage.

    Args:
      stage: its name.
      settings: the run's.
      found: what is there.
      known: outputs of the stages before it.
      own: the run's record.
      earlier: those of other runs, the latest first.
      is_there: whether what a stage has made is still there.
    """
    inputs = inputs_of(stage, settings, found, known)
    if stage in (CONVERT, FREEZE) and may_go_on(own.stages.get(TRAIN)) and stage in found.datasets:
        why = "this run's training has begun: later files are for the next run"
        return _skipped(stage, why, inputs, _dataset(stage, found), own.run_id)
    for record in (own, *earlier) if inputs is not None else ():
        before = record.stages.get(stage)
        if before is not None and before.has_outcome and before.inputs == inputs and is_there(stage, before):
            by = before.of_run or record.run_id
            is_own = record is own and by == own.run_id
            why = "done by this run already" if is_own else f"nothing has changed since run {by} did it"
            return _skipped(stage, why, inputs, before.outputs, by)
    return Decision(
        stage=stage,
        runs=True,
        why=_why(stage, inputs, own, earlier),
        inputs=inputs,
        command=command_of(stage, settings, found, known, own),
    )


def _skipped(
    stage: str, why: str, inputs: Mapping[str, str] | None, outputs: Mapping[str, str], of_run: str
) -> Decision:
    return Decision(stage=stage, runs=False, why=why, inputs=inputs, outputs=dict(outputs), of_run=of_run)


def _dataset(stage: str, found: Found) -> dict[str, str]:
    return {"digest": found.datasets[stage], "charset": found.charset or ""}


def _why(stage: str, inputs: Mapping[str, str] | None, own: RunRecord, earlier: Sequence[RunRecord]) -> str:
    """Why a stage is to be done, in words."""
    before = own.stages.get(stage)
    if may_go_on(before):
        return "it was begun, and did not end" if before and before.state == BEGUN else "it was stopped, and goes on"
    if before is not None and before.state == FAILED:
        return f"it failed with exit code {before.exit_code}"
    if inputs is None:
        return "its input is made by a stage before it"
    for record in (own, *earlier):
        last = record.stages.get(stage)
        if last is not None and last.has_outcome:
            changed = [name for name in inputs if inputs[name] != last.inputs.get(name)]
            if not changed:
                return f"what run {last.of_run or record.run_id} made is not there any more, or is another one by now"
            return f"since run {last.of_run or record.run_id} other {' and '.join(changed)}"
    return "no run has done it before"


# --- all stages ------------------------------------------------------------------------------------------------------


def plan(
    settings: Settings,
    found: Found,
    own: RunRecord,
    earlier: Sequence[RunRecord],
    is_there: Callable[[str, StageRecord], bool],
    newer: str | None = None,
) -> list[Decision]:
    """Decides about all stages as far as it can be known now: what follows from a stage that is to be done is, too.

    Args:
      settings, found, own, earlier, is_there: as of `decide`.
      newer: the run that was promoted and is newer than this one, so that `promote` is withheld; None without one.
    """
    known: dict[str, Mapping[str, str]] = {}
    decisions = []
    for stage in STAGES:
        decision = decide(stage, settings, found, known, own, earlier, is_there)
        if stage == PROMOTE and newer is not None and decision.runs:
            decision = Decision(stage=stage, runs=False, why=withheld(newer), inputs=decision.inputs)
        elif not decision.runs:
            known[stage] = decision.outputs
        decisions.append(decision)
    return decisions


def withheld(newer: str) -> str:
    """Why a run does not promote, in words."""
    return f"run {newer}, which is newer, was promoted; --promote_older lets the gate decide"


def promoted_by(records: Sequence[RunRecord], version: int | None) -> RunRecord | None:
    """The run that has promoted the current version itself; None if none has."""
    for record in records:
        stage = record.stages.get(PROMOTE)
        if stage is not None and has_promoted(stage) and stage.outputs["version"] == str(version):
            return record
    return None


def has_promoted(promotion: StageRecord) -> bool:
    """Whether a run has promoted a model itself: another version than there was before it."""
    outputs = promotion.outputs
    is_new = outputs.get("version") != outputs.get("before")
    return promotion.state == DONE and outputs["decision"] == "promoted" and is_new
