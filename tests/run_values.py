"""What the commands of a run leave behind, value by value, and how far the values of two runs are apart.

It reads their files alone, without the package, which may be another one for each run.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Keys of JSON that tell of time, of a mean over the last few steps, whose number depends on time, or of both.
OF_TIME = {"created", "started", "ended", "updated", "time", "mtime_s", "seconds", "phases", "first_step_s"}
OF_TIME |= {"images_per_second", "bound", "input_wait_fraction", "train_loss", "train_top_1", "document_sha256"}
OF_TIME |= {"counted_s", "elapsed_s", "goodput", "nodes", "slowest_worker", "checkpoint_digest"}

Facts = dict[str, Any]
"""What a run leaves behind: `KIND: FILE KEY` → a number, a text or an array."""


# --- what a run leaves behind ----------------------------------------------------------------------------------------


def facts(folder: Path, owners: Collection[str]) -> Facts:
    """All values in the files of a run, without times; paths are relative to its folder.

    Args:
      folder: of the run, as `tests/campaigns/same_training.py` makes it.
      owners: the datasets and cases whose files count.
    """
    found: Facts = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        drawn = path.name == "loss.png" or "/summaries/" in name  # of the loss curve's points
        if path.is_dir() or drawn or _owner(name) not in owners:
            continue
        found |= {f"{kind}: {key}": value for kind, key, value in _values(path, name, str(folder))}
    return found


def _owner(name: str) -> str:
    """The dataset or case that a file of a run's folder is of."""
    top, _, rest = name.partition("/")
    if top in ("runs", "answers", "inspected"):
        return rest.partition("/")[0]
    return {"gnt": "glyphs"}.get(top, top)


def _values(path: Path, name: str, root: str) -> Iterator[tuple[str, str, Any]]:
    """Kind, key and value of all that is in a file."""
    kind = _kind(name)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            yield from ((kind, f"{name} {key}", arrays[key]) for key in arrays.files)
    elif path.suffix == ".json":
        document = json.loads(path.read_text().replace(root, "."))
        if path.name == "report.json":
            yield from _series(name, document)
        elif path.name == "checkpoint.json":
            document.pop("metrics")  # of the last few steps
        yield from ((kind, f"{name} {key}", value) for key, value in leaves(document))
    elif path.suffix == ".txt":
        for number, line in enumerate(path.read_text().replace(root, ".").splitlines()):
            yield from ((kind, f"{name} line {number} {key}", value) for key, value in leaves(_parsed(line)))
    else:
        yield kind, name, hashlib.sha256(path.read_bytes()).hexdigest()


def _kind(name: str) -> str:
    top = name.partition("/")[0]
    if top == "answers":
        return "predictions" if name.endswith("-predict.txt") else "standard output"
    if top in ("glyphs", "images"):
        return {"tfrecord": "shards", "npz": "statistics"}.get(name.rpartition(".")[2], "manifests")
    if "/checkpoints/" in name:
        return "variables" if name.endswith(".npz") else "checkpoint documents"
    if "/evaluation/" in name:
        return "evaluations"
    return {"gnt": "synthetic glyphs", "inspected": "inspections"}.get(top, "reports and settings")


CURVE = "loss curve"


def _series(name: str, report: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The loss curve, of which each key has the steps that a point covers; it is taken out of the report."""
    before = 0
    for point in report.pop("curve"):
        step = point.pop("step")
        yield from ((CURVE, f"{name} steps {before + 1} to {step} {key}", value) for key, value in leaves(point))
        before = step
    report.pop("metrics")  # the last point of both series once more
    for point in report.pop("validation"):
        step = point.pop("step")
        yield from (("validation", f"{name} step {step} {key}", value) for key, value in leaves(point))


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers and texts in a JSON value, by their place in it, without those of OF_TIME."""
    if value == {}:
        yield key, "{}"
    elif isinstance(value, dict):
        for name in value.keys() - OF_TIME:
            yield from leaves(value[name], f"{key}.{name}")
    elif isinstance(value, list):
        yield f"{key}.length", len(value)
        for number, item in enumerate(value):
            yield from leaves(item, f"{key}.{number}")
    else:
        yield key, value


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line


# --- the comparison --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of one kind of values.

    Attributes:
      num_values: compared.
      old: how many of them differ between old runs, and the largest difference.
      new: the same, between the new run and the nearest old one.
      further: keys of which the new run is further from the nearest old one than old runs are from each other.
    """

    num_values: int
    old: tuple[int, float]
    new: tuple[int, float]
    further: list[str]


def distance(one: Any, other: Any) -> float:
    """The largest absolute difference of numbers; of anything else 0 where it is equal, infinity where it is not."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.dtype.kind in "iuf":
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return math.inf
        if one.tobytes() == other.tobytes():
            return 0.0
        return float(np.max(np.abs(one.astype(np.float64) - other.astype(np.float64)), initial=0.0))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return 0.0 if np.array_equal(one, other) else math.inf
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    return 0.0 if type(one) is type(other) and one == other else math.inf


def compare(olds: Sequence[Facts], new: Facts) -> dict[str, Comparison]:
    """Compares a new run with old ones, kind by kind.

    Args:
      olds: two at least.
      new: what must be no further from the nearest of them than they are from each other.
    """
    keys: dict[str, list[str]] = {}
    for key in sorted(set(new).union(*olds)):
        if not key.startswith(CURVE) or all(key in run for run in (*olds, new)):
            keys.setdefault(key.partition(":")[0], []).append(key)
    return {kind: _compared(olds, new, names) for kind, names in keys.items()}


def _compared(olds: Sequence[Facts], new: Facts, keys: Sequence[str]) -> Comparison:
    def apart(one: Facts, other: Facts, key: str) -> float:
        if key in one and key in other:
            return distance(one[key], other[key])
        return math.inf if key in one or key in other else 0.0

    old = {key: max(apart(*pair, key) for pair in itertools.combinations(olds, 2)) for key in keys}
    nearest = {key: min(apart(run, new, key) for run in olds) for key in keys}
    return Comparison(
        num_values=len(keys),
        old=(sum(value != 0 for value in old.values()), max(old.values())),
        new=(sum(value != 0 for value in nearest.values()), max(nearest.values())),
        further=[key for key in keys if not nearest[key] <= old[key]],
    )
