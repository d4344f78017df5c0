"""The folder of `infer`'s results: begun with a plan, filled with parts, closed by `_SUCCESS`. Under its lock."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable
from typing import Any

from tfos_job import storage
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.layout import InferenceLayout
from tfos_job.scoring.plan import Plan
from tfos_job.scoring.rows import Counts
from tfos_job.scoring.task import PartRecord

_OTHER_FOLDER = "Give another --output_dir, or remove this one"


def begin(output: InferenceLayout, plan: Plan) -> str:
    """Begins the results of a plan in a folder, or finds them there; returns the plan's id.

    Raises:
      SettingsError: the folder has results of another plan, or something else.
    """
    require_fitting(output, plan)
    if storage.exists(output.plan):
        return str(_read(output.plan)["id"])
    plan_id = uuid.uuid4().hex
    storage.make_dirs(output.parts_dir)
    storage.write_json(output.plan, plan.to_json() | {"id": plan_id})
    return plan_id


def require_fitting(output: InferenceLayout, plan: Plan) -> None:
    """Raises SettingsError as `begin` does, and changes nothing."""
    if not storage.is_dir(output.root):
        if storage.exists(output.root):
            raise SettingsError("is a file", place=output.root, next_step="Give a folder as --output_dir")
        return
    if storage.exists(output.plan):
        differences = plan.differences(_read(output.plan))
        if differences:
            raise SettingsError(
                f"has results that would be others now: {', '.join(differences)} changed",
                place=output.root,
                next_step=_OTHER_FOLDER,
            )
        return
    others = [entry.name for entry in storage.list_dir(output.root) if not entry.name.startswith(("_", "."))]
    if others:
        raise SettingsError(
            f"holds something else than results of infer, such as {others[0]}",
            place=output.root,
            next_step=_OTHER_FOLDER,
        )


def done_parts(output: InferenceLayout, plan: Plan) -> dict[int, PartRecord]:
    """The parts that are published and still there, by number."""
    there = {entry.name: entry.size_bytes for entry in storage.list_dir(output.root)}
    records = {entry.path for entry in storage.list_dir(output.parts_dir)} if storage.is_dir(output.parts_dir) else ()
    found = {}
    for number in range(plan.num_partitions):
        path = output.part_record(number)
        name = output.part(number, plan.output_format).rpartition("/")[2]
        if path not in records or name not in there:
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError):  # written again
            record = PartRecord.from_json(storage.read_json(path))
            if record.size_bytes == there[name]:
                found[number] = record
    return found


def finished(output: InferenceLayout, plan: Plan) -> dict[str, Any] | None:
    """The end document of a plan whose parts are all there, and whole; None if there is work left."""
    if not storage.exists(output.plan) or plan.differences(_read(output.plan)) or not storage.exists(output.success):
        return None
    there = {entry.name: entry.size_bytes for entry in storage.list_dir(output.root)}
    parts = [output.part(number, plan.output_format).rpartition("/")[2] for number in range(plan.num_partitions)]
    document = _read(output.success)
    is_whole = there.keys() >= set(parts) and sum(there[part] for part in parts) == document.get("size_bytes")
    return document if is_whole else None


def finish(output: InferenceLayout, plan: Plan, records: Iterable[PartRecord]) -> dict[str, Any]:
    """Writes the end document: the counts of all parts, and their bytes. Returns it.

    Raises:
      BadDataError: there is no answer in them. The parts stay, and say why; the folder gets no end document.
    """
    records = list(records)
    counts = sum((record.counts for record in records), start=Counts())
    if 0 < counts.num_rows == counts.num_errors:
        raise BadDataError(
            f"none of the {counts.num_rows} inputs could be read",
            place=plan.input,
            next_step=f"See the column `error` in {output.root}. Give another --output_dir to try again",
        )
    document = {
        **vars(counts),
        "num_partitions": plan.num_partitions,
        "size_bytes": sum(record.size_bytes for record in records),
        "model_digest": plan.model_digest,
        "step": plan.step,
    }
    storage.write_json(output.success, document)
    return document


def _read(path: str) -> dict[str, Any]:
    try:
        found = storage.read_json(path)
    except ValueError as error:
        raise SettingsError(f"not JSON: {error}", place=path, next_step=_OTHER_FOLDER) from error
    if not isinstance(found, dict):
        raise SettingsError("not a document of infer", place=path, next_step=_OTHER_FOLDER)
    return found
