"""The only submitter of a run id: its lock, its record on HDFS, and what it finds of the submission before it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from tfos_job import storage
from tfos_job.config.defaults import OUTCOMES
from tfos_job.errors import InterruptedJobError, JobError, MissingInputError, ResourceError, SettingsError, StorageError
from tfos_job.host import process_identity
from tfos_job.host.signals import Stopped
from tfos_job.layout import join
from tfos_job.lease import Lease
from tfos_job.submit import application_state, decision, follow, run_record, verdict, watch, yarn_client
from tfos_job.submit.application_state import Watched
from tfos_job.submit.decision import Process, Seen
from tfos_job.submit.run_record import ENDED, SUBMITTED, Asked, Record
from tfos_job.submit.spark_submit import Request

log = logging.getLogger(__name__)

_POLL_S = 3.0
_IN_FLIGHT_S = 10.0
_WRITE_S = 30.0  # while an application is followed


class Claim:
    """The right to submit under a run id, during a `with` block.

    Args:
      request: what is asked for; `hdfs_dir` has the record.
      run_id, stage: any words that are not empty.
      asked: what it asks for.
      environment: of Hadoop's client.
      submit_s: time limit of spark-submit for its submission.

    Raises:
      BusyError: another process holds it.
      BadDataError: the record is of a later version, or is none.
    """

    def __init__(
        self,
        request: Request,
        run_id: str,
        stage: str,
        asked: Asked,
        environment: Mapping[str, str],
        submit_s: float,
    ) -> None:
        folder = run_record.folder(request.hdfs_dir, run_id, stage)
        self.run_id, self.stage, self.asked = run_id, stage, asked
        self.tag = run_record.tag_of(request.hdfs_dir, run_id, stage, asked)
        self.record: Record | None = None
        self._path = join(folder, "submission.json")
        self._at_work: dict[str, bool] = {}
        self._outcome_dir = join(request.hdfs_dir, OUTCOMES)
        self._environment, self._submit_s = environment, submit_s
        self._lease = Lease(join(folder, "_lock"), f"tfos-job submit {request.command} --run_id {run_id}")

    def __enter__(self) -> Self:
        self._lease.__enter__()
        try:
            self.record = _read(self._path)
        except BaseException as e:
            self._lease.__exit__(type(e), e, e.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lease.__exit__(kind, error, trace)

    # --- what to do ---------------------------------------------------------------------------------------------------

    def settle(self) -> decision.Submit | decision.Attach | decision.Tell:
        """Waits until it is certain, or as certain as it gets, what to do, and returns that.

        Raises:
          SettingsError: other flags than those of the work that goes on or is done.
          ResourceError: YARN has not answered for `watch.AWAY_S`.
          InterruptedJobError: SIGINT or SIGTERM arrived; what is at work goes on.
        """
        try:
            return self._settle()
        except Stopped as e:
            fact = f"stopped by {e}. What an earlier submission of run {self.run_id} has submitted may go on"
            raise InterruptedJobError(
                fact, next_step="The same command again finds and follows it", signum=e.signum
            ) from e

    def _settle(self) -> decision.Submit | decision.Attach | decision.Tell:
        process, since_s, is_said = Process.GONE, time.monotonic(), False
        if self.record is not None and decision.needs_yarn(self.record):
            log.info("run %s was submitted before: YARN is asked how attempt %d is", self.run_id, self.record.number)
        while True:
            seen = Seen()
            if self.record is not None and decision.needs_yarn(self.record):
                now = _process_of(self.record)  # before YARN is asked: what it did until its end is listed then
                if now is not process:
                    process, since_s = now, time.monotonic()
                seen = Seen(
                    listed=self._list(self.record.tag) | self._at_work,
                    process=process,
                    waited_s=time.monotonic() - since_s,
                    submit_s=self._submit_s,
                    in_flight_s=_IN_FLIGHT_S,
                )
            match decision.decide(self.record, self.asked, seen):
                case decision.Refuse():
                    raise self._other_flags()
                case decision.Learn(application):
                    self._learn(application)
                case decision.EndProcess():
                    self._end_process()
                case decision.Wait():
                    if not is_said:
                        log.info("%s", self._in_words(process))
                    is_said = True
                    _pause()
                case action:
                    return action

    def _list(self, tag: str) -> dict[str, bool]:
        began_s = time.monotonic()
        while True:
            answer = yarn_client.list_tagged(tag, self._environment, began_s + watch.AWAY_S)
            found = application_state.listed(answer)
            if found is not None:
                return found
            last = next((line for line in reversed(answer.splitlines()) if line.strip()), "it says nothing")
            if time.monotonic() - began_s > watch.AWAY_S:
                raise ResourceError(
                    f"YARN has not said for {watch.AWAY_S:.0f} s whether run {self.run_id} is at work: {last.strip()}",
                    place="ResourceManager",
                    next_step="Nothing was submitted now: run it again once `yarn application -list` answers",
                )
            log.debug("YARN has no list: %s", last)
            _pause()

    def _learn(self, application: str) -> None:
        """Records the end of an application that nobody has followed to it."""
        assert self.record is not None
        watched = Watched(application=application)
        is_known = watch.look(watched, self._environment, lambda: None)
        if is_known and not watched.has_ended:  # it is not listed: its tag was lost
            self._at_work = {application: False}
            return
        outcome = follow.read_outcome(self._outcome_dir, application)
        error = self.judge(watched, outcome) if is_known else _of_outcome(application, outcome)
        self._write(self.record, application=application, **_end(error), told=False)
        log.info("attempt %d, %s, has ended: %s", self.record.number, application, error or "done")

    def judge(self, watched: Watched, outcome: Mapping[str, Any] | None) -> JobError | None:
        """The verdict on an application's end. A success without an outcome is none: its results are not known."""
        error = verdict.judge(watched.end(self.asked.command), outcome)
        if error is None and outcome is None:
            return StorageError(
                "it has succeeded and left no outcome", place=watched.application, next_step="Submit it again"
            )
        return error

    def _end_process(self) -> None:
        assert self.record is not None
        assert self.record.spark_submit is not None
        log.warning("ending spark-submit of an earlier submission: it has submitted nothing for %g s", self._submit_s)
        if process_identity.is_alive_here(self.record.spark_submit):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(self.record.spark_submit["pid"]), signal.SIGKILL)  # it leads a session of its own

    def _in_words(self, process: Process) -> str:
        assert self.record is not None
        if process is Process.UNSEEN:
            host = (self.record.spark_submit or {}).get("host")
            return (
                f"attempt {self.record.number} was submitted from {host}, and YARN has no application of it: waiting "
                f"up to {self._submit_s:g} s for one (--submit_timeout)"
            )
        if process is Process.ALIVE:
            return f"spark-submit of attempt {self.record.number} is at work here: waiting for its application"
        return f"spark-submit of attempt {self.record.number} has ended: waiting for what it may have submitted"

    def _other_flags(self) -> SettingsError:
        assert self.record is not None
        is_done = self.record.state == ENDED and self.record.exit_code == 0
        state = "is done" if is_done else "is at work"
        differences = "; ".join(self.record.asked.differences(self.asked))
        return SettingsError(
            f"run {self.run_id} {state} with other flags: {differences}",
            place="--run_id",
            next_step="Give the same flags, or another --run_id",
        )

    # --- what is done -------------------------------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        """Records that an attempt is about to be submitted."""
        self._lease.check()
        before = self.record or Record(run_id=self.run_id, stage=self.stage, asked=self.asked, tag=self.tag)
        self._write(before.next(self.asked, self.tag, number))

    def started(self, pid: int) -> None:
        """Records spark-submit's process, which is let go afterwards."""
        assert self.record is not None
        self._lease.check()
        self._write(self.record, spark_submit=process_identity.of(pid))

    def submitted(self, application: str) -> None:
        """Records the application. If that fails, its tag still leads to it."""
        assert self.record is not None
        if application != self.record.application:
            if self.record.state == ENDED:  # it came later than was waited for
                self.record = self.record.next(self.asked, self.tag, self.record.number + 1)
            self._write_if_possible(state=SUBMITTED, application=application)

    def ended(self, application: str, error: JobError | None) -> None:
        """Records the end that is told now. If that fails, YARN and the outcome still have it."""
        self._write_if_possible(application=application, **_end(error), told=True)

    def _write_if_possible(self, **changes: Any) -> None:
        assert self.record is not None
        try:
            with storage.within(_WRITE_S):
                self._write(self.record, **changes)
        except JobError as e:
            log.warning("The record of run %s is not up to date: %s", self.run_id, e)

    def _write(self, record: Record, **changes: Any) -> None:
        changed = dataclasses.replace(record, **changes)
        self._lease.check_quickly()
        # In ASCII, which holds also words that are not UTF-8, as JSON escapes.
        storage.write_bytes(self._path, json.dumps(changed.to_json(), indent=1, sort_keys=True).encode("ascii"))
        self.record = changed


def _pause() -> None:
    time.sleep(_POLL_S)


def _read(path: str) -> Record | None:
    try:
        return Record.from_json(storage.read_json(path), path)
    except MissingInputError:
        return None
    except ValueError as e:
        return Record.from_json(str(e), path)  # which raises


def _process_of(record: Record) -> Process:
    identity = record.spark_submit or {}
    if process_identity.is_alive_here(identity):
        return Process.ALIVE
    return Process.GONE if process_identity.is_gone(identity) else Process.UNSEEN


def _of_outcome(application: str, outcome: Mapping[str, Any] | None) -> JobError | None:
    """The end of an application that YARN does not know any more."""
    code = (outcome or {}).get("exit_code")
    if code is None:
        return verdict.error_of(
            71, {"fact": "YARN does not know it any more, and it left no end", "place": application}
        )
    return verdict.error_of(code, (outcome or {}).get("error")) if code else None


def _end(error: JobError | None) -> dict[str, Any]:
    """The fields of a record that has ended."""
    words = {"fact": error.fact, "place": error.place, "next_step": error.next_step} if error else None
    return {"state": ENDED, "exit_code": error.exit_code if error else 0, "error": words}
