"""Run ids, their order, and the paths below `--work_dir`. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from tfos_job.layout import DatasetLayout, join

TRAIN_SPLIT, FROZEN_SPLIT = "train", "frozen"
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")
_MAX_NAME = 120  # of the 255 bytes that file systems take, since other names are made from it
_DATE = re.compile(r"(?<!\d)(\d{4})-?(\d\d)-?(\d\d)(?:[T_ ]?(\d\d):?(\d\d)(?::?(\d\d))?)?(?!\d)", re.ASCII)


def encoded(run_id: str) -> str:
    """A run id as the name of a file or folder: `=3A` for a colon, which HDFS has in no name.

    Two ids never have the same name. One that is long ends with a digest.
    """
    data = run_id.encode("utf-8")
    text = "".join(
        chr(byte) if byte in _PLAIN and (at or byte not in b"._") else f"={byte:02X}" for at, byte in enumerate(data)
    )
    if len(text) <= _MAX_NAME:
        return text
    return f"{text[: _MAX_NAME - 18]}=-{hashlib.sha256(data).hexdigest()[:16]}"


def date_of(run_id: str) -> datetime | None:
    """The first date in a run id, with its time of day if that follows; None without one."""
    match = _DATE.search(run_id)
    if match is None:
        return None
    try:
        return datetime(*(int(part or 0) for part in match.groups()), tzinfo=UTC)  # type: ignore[arg-type, misc]
    except ValueError:
        return None


def is_older(run_id: str, began: str, other_id: str, other_began: str) -> bool:
    """Whether a run is about an earlier time than another one: by the dates in their ids, else by their beginnings.

    Args:
      run_id: of the run.
      began: time (ISO 8601, UTC) at which it began first.
      other_id, other_began: those of the other one.
    """
    date, other_date = date_of(run_id), date_of(other_id)
    if date is not None and other_date is not None and date != other_date:
        return date < other_date
    return began < other_began


@dataclass(frozen=True)
class PipelineLayout:
    """The folder of a pipeline (`--work_dir`).

    ::

        dataset/              splits `train` and `frozen`
        runs/<id>/            the training of a run
        staged/<id>/          its exports, until they are promoted
        pipeline/<id>.json    its record (`record.py`)
        pipeline/_lock        of the command that works
    """

    root: str

    @property
    def dataset(self) -> DatasetLayout:
        return DatasetLayout(join(self.root, "dataset"))

    @property
    def records_dir(self) -> str:
        return join(self.root, "pipeline")

    @property
    def lock(self) -> str:
        return join(self.records_dir, "_lock")

    def run(self, run_id: str) -> str:
        return join(self.root, "runs", encoded(run_id))

    def staged(self, run_id: str) -> str:
        return join(self.root, "staged", encoded(run_id))

    def record(self, run_id: str) -> str:
        return join(self.records_dir, f"{encoded(run_id)}.json")
