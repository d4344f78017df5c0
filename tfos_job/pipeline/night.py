"""A run of the pipeline: its stages one after the other, and its record.

The record says that a stage has begun before it does, and what it has made once it has ended well. So whatever is
killed, the next command with the same run id finds the stage that was at work, and does it again: each stage goes on
with what it left, or publishes all or nothing.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from tfos_job.errors import JobError, NodeDiedError, exit_code_class
from tfos_job.host.signals import Stopped
from tfos_job.lease import Lease
from tfos_job.pipeline import facts, frozen_set, plan
from tfos_job.pipeline import record as records
from tfos_job.pipeline.facts import Listings
from tfos_job.pipeline.names import is_older
from tfos_job.pipeline.plan import Decision
from tfos_job.pipeline.record import BEGUN, DONE, FAILED, SKIPPED, WITHHELD, End, StageRecord
from tfos_job.pipeline.stage_runner import StageEnd, StageRunner
from tfos_job.pipeline.stages import (
    COMMANDS,
    CONVERT,
    FREEZE,
    PROMOTE,
    STAGES,
    TRAIN,
    Found,
    Promoted,
    Settings,
    train_dir,
)
from tfos_job.run.lineage import now

_KILLED = 137
_log = logging.getLogger(__name__)


def run(settings: Settings, flags: Mapping[str, Any], runner: StageRunner) -> dict[str, Any]:
    """Does what is left of a run, under the lock of its folder; see `Night`.

    Raises:
      BusyError: another command is at work there.
      JobError: as `Night.run`.
    """
    with Lease(settings.layout.lock, f"tfos-job pipeline, run {settings.run_id}") as lease:
        return Night(settings, flags, lease).run(runner)


class Night:
    """One run.

    Args:
      settings: what it is to do.
      flags: those of the command, for the record.
      lease: of the folder; None for `foretell` alone.
    """

    def __init__(self, settings: Settings, flags: Mapping[str, Any], lease: Lease | None = None) -> None:
        self._settings, self._layout, self._lease = settings, settings.layout, lease
        frozen_set.require_apart(settings.gnt_dir, settings.eval_gnt_dir)
        known = records.read_all(self._layout)
        standing = known.pop(settings.run_id, None)
        self._earlier = list(known.values())
        self.own = standing or records.new(settings.run_id, flags)
        if not self.is_over:
            self.own = msgspec.structs.replace(self.own, flags=dict(flags), end=None, ended=None)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do. A run that was older than the promoted one can still be told to promote."""
        promotion = self.own.stages.get(PROMOTE)
        is_withheld = promotion is not None and promotion.state == WITHHELD
        return self.own.end is not None and not (is_withheld and self._settings.promote_older)

    # --- what would be done ------------------------------------------------------------------------------------------

    def foretell(self) -> list[Decision]:
        """The stages, as far as can be known before they are done; none of a run that has ended. Changes nothing.

        Raises:
          JobError: a stage cannot begin.
        """
        return [] if self.is_over else self._foretell(Listings(self._settings))

    def _foretell(self, listings: Listings) -> list[Decision]:
        found = facts.look(self._settings, listings.digests)
        decisions = plan.plan(
            self._settings, found, self.own, self._earlier, facts.things_of(found), self._newer(found)
        )
        to_do = {decision.stage for decision in decisions if decision.runs}
        if to_do & {CONVERT, FREEZE}:
            frozen_set.require_unseen(listings.trained, listings.frozen)
        converted = facts.manifest_of(self._layout, FREEZE)
        if FREEZE in to_do and converted is not None:
            frozen_set.require_same(self._settings, listings.frozen, converted.sources)
        if TRAIN in to_do and not to_do & {CONVERT, FREEZE}:
            frozen_set.require_comparable(self._settings, found)
        return decisions

    def _newer(self, found: Found) -> str | None:
        """The run that was promoted, if it is newer than this one and may not be replaced."""
        version = None if found.promoted is None else found.promoted.version
        other = plan.promoted_by(self._earlier, version)
        if other is None or self._settings.promote_older:
            return None
        is_back = is_older(self.own.run_id, self.own.began, other.run_id, other.began)
        return other.run_id if is_back else None

    # --- doing it ----------------------------------------------------------------------------------------------------

    def run(self, runner: StageRunner) -> dict[str, Any]:
        """Does what is left of the run.

        Returns:
          `run_id`, `decision` (`promoted` or `kept`), `version` (the current one afterwards; None without one),
          `reason`, `stages` (the state of each) and `already_ended`.

        Raises:
          JobError: a stage has failed, with its exit code; the next command goes on with it.
          Stopped: a signal has come; as above.
        """
        if self.is_over:
            return self._result(already_ended=True)
        for left in (left for one in (self.own, *self._earlier) for left in one.stages.values()):
            if left.state == BEGUN and left.at_work:
                runner.settle(left.at_work)
        listings = Listings(self._settings)
        self._foretell(listings)  # what cannot be done is not begun
        known: dict[str, Mapping[str, str]] = {}
        for number, stage in enumerate(STAGES, 1):
            found = facts.look(self._settings, listings.digests)
            there = facts.things_of(found)
            decision = plan.decide(stage, self._settings, found, known, self.own, self._earlier, there)
            newer = self._newer(found) if stage == PROMOTE else None
            title = f"run {self.own.run_id}: {stage} ({number} of {len(STAGES)})"
            if decision.runs and newer is not None:
                self._put(stage, StageRecord(state=WITHHELD, why=plan.withheld(newer)))
                _log.info("%s is left out: %s", title, plan.withheld(newer))
                continue
            if not decision.runs:
                _log.info("%s is skipped: %s", title, decision.why)
                known[stage] = decision.outputs
                self._skip(decision)
                continue
            if stage == TRAIN:
                frozen_set.require_comparable(self._settings, found)
            known[stage] = self._do(decision, runner, title, listings, found, known)
        return self._end(facts.look(self._settings, listings.digests))

    def _skip(self, decision: Decision) -> None:
        if decision.of_run == self.own.run_id and decision.stage in self.own.stages:
            return  # the record has its outcome
        skipped = StageRecord(
            state=SKIPPED,
            why=decision.why,
            inputs=dict(decision.inputs or {}),
            outputs=dict(decision.outputs),
            of_run=decision.of_run,
        )
        self._put(decision.stage, skipped)

    def _do(
        self,
        decision: Decision,
        runner: StageRunner,
        title: str,
        listings: Listings,
        found: Found,
        known: Mapping[str, Mapping[str, str]],
    ) -> dict[str, str]:
        stage = decision.stage
        begun = StageRecord(
            state=BEGUN,
            why=decision.why,
            inputs=dict(decision.inputs or {}),
            outputs=self._before(stage, found),
            work_id=self._work_id(decision),
            command=list(decision.command),
            began=now(),
        )
        self._put(stage, begun)
        _log.info("%s begins: %s", title, decision.why)
        began_s = time.monotonic()

        def at_work(where: dict[str, Any]) -> None:
            self._put(stage, msgspec.structs.replace(begun, at_work=where))

        try:
            end = runner.run(decision.command, str(begun.work_id), at_work)
        except Stopped as stopped:
            with contextlib.suppress(JobError):  # the signal is the end, whatever can be written
                code, words = 128 + stopped.signum, f"stopped by {stopped}"
                self._put(stage, _ended(begun, FAILED, StageEnd(exit_code=code, results=(), last_line=words)))
            raise
        _log.info("%s has ended after %.0f s with exit code %d", title, time.monotonic() - began_s, end.exit_code)
        if end.exit_code:
            self._put(stage, _ended(begun, FAILED, end))
            raise stage_error(self.own.run_id, stage, end)
        found = facts.look(self._settings, listings.digests)
        made = facts.outputs_of(stage, end.result, self._settings, found, train_dir(self._settings, known))
        done = msgspec.structs.replace(_ended(begun, DONE, end), outputs=made | begun.outputs, of_run=self.own.run_id)
        self._put(stage, done)
        return done.outputs

    def _before(self, stage: str, found: Found) -> dict[str, str]:
        """The version that was the current one before this run's promotion, however often that is begun."""
        if stage != PROMOTE:
            return {}
        last = self.own.stages.get(stage)
        version = "" if found.promoted is None else str(found.promoted.version)
        is_begun = last is not None and last.state in (BEGUN, FAILED)
        return {"before": last.outputs.get("before", version) if last is not None and is_begun else version}

    def _work_id(self, decision: Decision) -> str:
        """That of the same work if it was begun before and has not ended well, else a new one."""
        last = self.own.stages.get(decision.stage)
        if last is not None and last.state in (BEGUN, FAILED):
            is_same = (last.inputs, tuple(last.command)) == (decision.inputs, decision.command)
            if is_same and last.work_id:
                return last.work_id
        return f"{self.own.run_id} {decision.stage} {uuid.uuid4().hex[:8]}"

    def _put(self, stage: str, state: StageRecord) -> None:
        """Writes a stage's state, if the lock is still this command's."""
        self.own = self.own.with_stage(stage, state)
        self._write()

    def _write(self) -> None:
        if self._lease is not None:
            self._lease.check()
        records.write(self._layout, self.own)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self, found: Found) -> dict[str, Any]:
        end = end_of(self.own.stages[PROMOTE], found.promoted)
        self.own = msgspec.structs.replace(self.own, end=end, ended=now())
        self._write()
        return self._result(already_ended=False)

    def _result(self, *, already_ended: bool) -> dict[str, Any]:
        assert self.own.end is not None
        states = {name: stage.state for name, stage in self.own.stages.items()}
        end = msgspec.to_builtins(self.own.end)
        return {"run_id": self.own.run_id, **end, "stages": states, "already_ended": already_ended}


def end_of(promotion: StageRecord, current: Promoted | None) -> End:
    """The end of a run, from its last stage and the model that is the current one then. Pure."""
    version = None if current is None else current.version
    if promotion.state == DONE:
        reason = promotion.outputs["reason"]
        if not plan.has_promoted(promotion):
            return End(decision="kept", version=version, reason=reason)
        number = int(promotion.outputs["version"])
        # A command that was killed behind its promotion finds it done, and has not the reason.
        is_it = current is not None and current.version == number
        return End(decision="promoted", version=number, reason=current.reason if current and is_it else reason)
    if promotion.state == SKIPPED:
        reason = f"nothing is new since run {promotion.of_run} ({promotion.outputs['reason']})"
        return End(decision="kept", version=version, reason=reason)
    return End(decision="kept", version=version, reason=promotion.why)


def stage_error(run_id: str, stage: str, end: StageEnd) -> JobError:
    """The error that a run ends with because of a stage. It has the stage's exit code; 71 if somebody killed it."""
    place = f"run {run_id}, {stage}"
    if end.exit_code == _KILLED:
        return NodeDiedError("its process was killed by SIGKILL", place=place, next_step="The same command goes on")
    prefix = f"tfos-job {COMMANDS[stage]}: error: "
    fact = end.last_line.removeprefix(prefix) or f"it ended with exit code {end.exit_code}"
    error = exit_code_class(end.exit_code)(fact, place=place)
    error.exit_code = end.exit_code
    return error


def _ended(begun: StageRecord, state: Literal["done", "failed"], end: StageEnd) -> StageRecord:
    """The record of a stage that has ended."""
    error = end.last_line or None if state == FAILED else None
    return msgspec.structs.replace(
        begun, state=state, ended=now(), exit_code=end.exit_code, error=error, result=end.result
    )
