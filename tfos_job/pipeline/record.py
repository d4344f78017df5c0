"""The record of a run of the pipeline: WORK_DIR/pipeline/<id>.json, replaced by rename (docs/formats.md).

It says how far the run came. Later runs take from it what need not be done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

import tfos_job
from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.pipeline.names import PipelineLayout, encoded
from tfos_job.run import lineage

FORMAT_VERSION = 1
BEGUN: Final = "begun"
DONE: Final = "done"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
WITHHELD: Final = "withheld"


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of a run.

    Attributes:
      state: `begun`, `done` or `failed`; `skipped` if its outcome was there already; `withheld` if it was not to run.
      why: the decision in words.
      inputs: what its outcome follows from, by name: digests, or texts as they are.
      outputs: what later stages take from it, by name.
      of_run: the run whose outcome it is; another one than the record's of a stage that was skipped.
      work_id: the name of this piece of work, which a stage keeps while it is begun again and again for the same.
      command: the words of its command line, without the program.
      began, ended: times (UTC).
      exit_code: None of a stage that has not ended.
      result: its JSON result, if it had one.
      error: the last line of its log, of a stage that failed.
      at_work: where it works, as the runner has said it, for a run that goes on after this one was killed.
    """

    state: Literal["begun", "done", "failed", "skipped", "withheld"]
    why: str
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    of_run: str | None = None
    work_id: str | None = None
    command: list[str] = []
    began: str | None = None
    ended: str | None = None
    exit_code: int | None = None
    result: Any = None
    error: str | None = None
    at_work: dict[str, Any] | None = None

    @property
    def has_outcome(self) -> bool:
        """True if its outputs can be used."""
        return self.state in (DONE, SKIPPED)


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a run: the decision in words, and the version that servers have afterwards."""

    decision: Literal["promoted", "kept"]
    version: int | None
    reason: str


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the pipeline.

    Attributes:
      run_id: as it was given.
      began, ended: times (UTC) of the first beginning and of the last end; None while it is not at its end.
      flags: of the last command.
      stages: by name, in their order.
      end: None until all stages are done.
    """

    format_version: int = FORMAT_VERSION
    run_id: str
    began: str
    ended: str | None = None
    package_version: str = tfos_job.__version__
    flags: dict[str, Any] = {}
    stages: dict[str, StageRecord] = {}
    end: End | None = None

    def with_stage(self, name: str, stage: StageRecord) -> RunRecord:
        """The same, with another state of a stage."""
        return msgspec.structs.replace(self, stages={**self.stages, name: stage})


def new(run_id: str, flags: Mapping[str, Any]) -> RunRecord:
    """The record of a run that begins now."""
    return RunRecord(run_id=run_id, began=lineage.now(), flags=dict(flags))


def write(layout: PipelineLayout, record: RunRecord) -> None:
    """Replaces the record's file."""
    storage.write_json(layout.record(record.run_id), msgspec.to_builtins(record))


def read_all(layout: PipelineLayout) -> dict[str, RunRecord]:
    """All records by run id, the one that began last first.

    Raises:
      BadDataError: one is damaged, or of another run than its name says.
    """
    if not storage.is_dir(layout.records_dir):
        return {}
    names = [entry for entry in storage.list_dir(layout.records_dir) if not entry.name.startswith("_")]
    found = [_read(entry.path, entry.name) for entry in names if entry.name.endswith(".json")]
    return {record.run_id: record for record in sorted(found, key=lambda record: record.began, reverse=True)}


def _read(path: str, name: str) -> RunRecord:
    next_step = "Move it away: the stages of this run are then looked for in other records, or done again"
    try:
        record = msgspec.convert(json.loads(storage.read_bytes(path)), RunRecord)
        if record.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version {record.format_version}, expected {FORMAT_VERSION}")
        if name != f"{encoded(record.run_id)}.json":
            raise ValueError(f"it is about the run {record.run_id!r}")
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BadDataError(f"no record of a pipeline's run: {error}", place=path, next_step=next_step) from error
    return record
