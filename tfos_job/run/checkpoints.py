"""Checkpoints of a run: written aside, published whole by one rename, chosen only after they have been read back.

::

    checkpoints/step-00002000/                   one that is whole: see `checkpoint_files.py`
    checkpoints/_building-<attempt>-<token>/     one that is being written, or that was left (`retention.py`)
    checkpoints/_damaged-step-00001000-<time>/   one that was damaged, kept for a look

Only the holder of the run's lock, and who works on its behalf, publishes, retains or puts aside. Others read at the
same time, and list again if a training has removed what was on their list. No TensorFlow here: the driver and the
command line choose checkpoints without it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from tfos_job import storage
from tfos_job.errors import BadDataError, DivergedError, MissingInputError
from tfos_job.layout import RunLayout, checkpoint_step, damaged_since
from tfos_job.run import checkpoint_files
from tfos_job.run.checkpoint_files import Arrays, CheckpointInfo

# The values that `publish` needs at least beside the variables; all of it comes back in `CheckpointInfo.document`.
META_KEYS = ("model", "characters", "charset_digest", "dataset_digest", "input_position", "metrics")

KEEP_LAST = 2
"""Checkpoints that stay, beside the best one."""
KEEP_DAMAGED = 2
"""Damaged ones that are kept for a look."""
_MAX_LISTINGS = 10  # tries; no training removes checkpoints faster than they are read

_Found = TypeVar("_Found")
_log = logging.getLogger(__name__)


# --- writing ---------------------------------------------------------------------------------------------------------


def publish(
    run: RunLayout,
    step: int,
    variables: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    guard: Callable[[], None] = lambda: None,
    attempt: int = 0,
) -> str:
    """Publishes one checkpoint whole.

    A whole one of the same step is left as it is; a damaged one is put aside.

    Args:
      run: the run it belongs to.
      step: the global step.
      variables: arrays by name; names may hold `/`.
      meta: JSON values; at least `META_KEYS`.
      guard: called last before it is published; raises if the run is somebody else's by now.
      attempt: the number of the attempt that publishes; 0 outside of one.

    Returns:
      The checkpoint's folder.

    Raises:
      DivergedError: a variable is not finite; nothing is published.
      StorageError: the file system failed; nothing is published.
    """
    missing = [key for key in META_KEYS if key not in meta]
    if missing:
        raise ValueError(f"publish needs meta[{missing[0]!r}]")
    broken = checkpoint_files.first_not_finite(variables)
    if broken:
        raise DivergedError(
            f"variable {broken} is not finite at step {step}",
            place=run.root,
            next_step="Lower --learning_rate; `train` goes on from the checkpoint before",
        )
    target = run.checkpoint(step)
    if storage.exists(target) and _stands(run, target):
        return target
    building = run.checkpoint_building(attempt, uuid.uuid4().hex)
    try:
        storage.make_dirs(building)
        checkpoint_files.write(building, step, variables, meta)
        guard()
        storage.publish_dir(building, target)
    except BaseException:
        storage.remove(building)
        raise
    _log.info("checkpoint of step %d published: %s", step, target)
    return target


def put_aside(run: RunLayout, path: str, damage: BadDataError) -> None:
    """Renames a damaged checkpoint, so that it is none any more and can be looked at; the last ones of these stay."""
    name = path.rpartition("/")[2]
    target = run.checkpoint_damaged(name, f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    storage.publish_dir(path, target)
    _log.warning("%s: %s. It is kept for a look as %s", name, damage.fact, target)
    aside = {since: e.path for e in storage.list_dir(run.checkpoints_dir) if (since := damaged_since(e.name))}
    for since in sorted(aside, reverse=True)[KEEP_DAMAGED:]:
        storage.remove(aside[since])


def _stands(run: RunLayout, path: str) -> bool:
    """True if the checkpoint at `path` is whole; a damaged one is put aside."""
    try:
        verify(path)
    except BadDataError as error:
        put_aside(run, path, error)
        return False
    _log.info("checkpoint %s is there already and whole: left as it is", path)
    return True


# --- reading ---------------------------------------------------------------------------------------------------------


def candidates(run: RunLayout) -> list[str]:
    """The folders that bear a checkpoint's name, newest first; verified or not."""
    if not storage.is_dir(run.checkpoints_dir):
        return []
    entries = [e for e in storage.list_dir(run.checkpoints_dir) if checkpoint_step(e.name) is not None]
    return [e.path for e in sorted(entries, key=lambda e: checkpoint_step(e.name) or 0, reverse=True)]


def verify(path: str) -> CheckpointInfo:
    """Reads a checkpoint through: files, sizes, digests, arrays, numbers.

    Raises:
      BadDataError: it is torn or damaged; the error says where.
      MissingInputError: it is gone.
    """
    return checkpoint_files.read(path)[0]


def load(info: CheckpointInfo) -> Arrays:
    """The arrays of a checkpoint by name, checked once more on the way in.

    Raises:
      BadDataError: it has been damaged since.
      MissingInputError: it is gone.
    """
    return checkpoint_files.read_variables(info.path, info.document)


def latest(run: RunLayout) -> CheckpointInfo | None:
    """The newest checkpoint that verifies. Torn ones are passed over and named in the log."""
    return _with_new_lists(lambda: next((info for info, _ in _verified(candidates(run))), None))


def best(run: RunLayout) -> CheckpointInfo | None:
    """The verified checkpoint with the highest top-1 on the run's validation split; the later one of equals."""
    return _with_new_lists(lambda: next((info for info, _ in _verified(by_merit(run))), None))


def by_merit(run: RunLayout) -> list[str]:
    """Candidates that have been evaluated on the run's validation split, best first, the later one of equals first.

    Other splits do not count: choosing by the test split would make its accuracy worthless.
    """
    split_name = storage.read_json(run.config).get("validation_split_name") if storage.exists(run.config) else None
    if split_name is None:
        return []
    scored: list[tuple[float, int, str]] = []
    for path in candidates(run):
        step = checkpoint_step(path.rpartition("/")[2]) or 0
        top_1 = _top_1(run.evaluation(step, split_name))
        if top_1 is not None:
            scored.append((top_1, step, path))
    return [path for _, _, path in sorted(scored, reverse=True)]


def _top_1(evaluation: str) -> float | None:
    """The top-1 of an evaluation; None if it is missing or damaged, so that saving does not fail for it."""
    try:
        found = storage.read_json(evaluation)
        return float(found["top_1"])
    except MissingInputError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        _log.warning("passed over: %s has no top_1 that can be read (%r)", evaluation, error)
        return None


def resolve(run: RunLayout, which: str) -> CheckpointInfo:
    """The same as `read`, without the arrays."""
    return read(run, which)[0]


def read_network(run: RunLayout, which: str) -> tuple[CheckpointInfo, Arrays]:
    """The same as `read`, without the arrays of the optimizer, which are most of them."""
    return read(run, which, (checkpoint_files.OPTIMIZER_PREFIX,))


def read(run: RunLayout, which: str, leave_out: tuple[str, ...] = ()) -> tuple[CheckpointInfo, Arrays]:
    """The checkpoint that `--checkpoint` or `--restore` names, with its arrays by name: its files may be removed now.

    Args:
      run: the run that `last` and `best` are looked for in.
      which: `last`, `best` or the path of a checkpoint's folder.
      leave_out: beginnings of the names of arrays that are not wanted.

    Raises:
      MissingInputError: there is none.
      BadDataError: the one at that path is torn.
    """
    if which in _LISTS:
        found = _with_new_lists(lambda: next(_verified(_LISTS[which](run), leave_out), None))
        if found is None:
            raise _missing(run, which)
        return found
    require(run, which)
    return checkpoint_files.read(which, leave_out)


def require(run: RunLayout, which: str) -> None:
    """Raises MissingInputError as `read` does, without reading a checkpoint: what is there may still be damaged."""
    if not (_LISTS[which](run) if which in _LISTS else storage.is_dir(which)):
        raise _missing(run, which)


def named(run: RunLayout, which: str) -> list[str]:
    """The folders of which `read` takes the first one that is whole."""
    return _LISTS[which](run) if which in _LISTS else [which]


_LISTS = {"last": candidates, "best": by_merit}


def _missing(run: RunLayout, which: str) -> MissingInputError:
    if which not in _LISTS:
        return MissingInputError("no checkpoint there", place=which, next_step="Give `last`, `best` or a step-… folder")
    if not storage.is_dir(run.root):
        return MissingInputError("no such folder", place=run.root, next_step="Check --train_dir")
    names = ", ".join(path.rpartition("/")[2] for path in candidates(run)) or "nothing"
    needs = "verifies" if which == "last" else "verifies and was evaluated on a --validation_split_name"
    return MissingInputError(
        f"no checkpoint that {needs}; there is {names}",
        place=run.checkpoints_dir,
        next_step="Train first, or give the path of a checkpoint",
    )


def none_verifies(run: RunLayout, num: int) -> BadDataError:
    """The error of a run that has so many checkpoints, all of them damaged."""
    return BadDataError(
        f"none of the {num} checkpoints verifies",
        place=run.checkpoints_dir,
        next_step="Restore one from elsewhere, or start again with --overwrite",
    )


def _verified(paths: Iterable[str], leave_out: tuple[str, ...] = ()) -> Iterator[tuple[CheckpointInfo, Arrays]]:
    """Those of `paths` that verify. Only damage is passed over: failing storage is an error of its own.

    Raises:
      MissingInputError: one of them is gone.
    """
    for path in paths:
        try:
            yield checkpoint_files.read(path, leave_out)
        except BadDataError as error:
            _log.warning("passed over: %s", error)


def _with_new_lists(find: Callable[[], _Found]) -> _Found:
    """The result of `find`, which begins with a list; repeated if a training has removed what was on the list."""
    for _ in range(_MAX_LISTINGS - 1):
        try:
            return find()
        except MissingInputError as error:
            _log.info("looking again: %s", error)
    return find()
