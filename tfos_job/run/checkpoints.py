"""Checkpoints: written aside, published whole by one rename, believed only after they have been read back.

::

    checkpoints/step-00002000/
        variables.npz      every array under its name, uncompressed, loadable by numpy.load(..., allow_pickle=False)
        checkpoint.json    what belongs to them: step, shapes, sizes and SHA-256, network, charset, input position
    checkpoints/_building-<token>/     one on its way; swept by `retain`

A *verified* checkpoint has all files, of the right size and digest, that load and hold finite numbers. Nothing but
a verified one is ever chosen. Only the holder of the run's lock publishes or retains; others read beside it, and choose
again where what they have listed is gone by then. No TensorFlow here: the driver and the command line choose
checkpoints without it.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy as np

from tfos_job import storage
from tfos_job.config import GNT, NO_NORMALIZATION
from tfos_job.errors import BadDataError, DivergedError, MissingInputError
from tfos_job.formats.hashing import HashingWriter
from tfos_job.layout import BUILDING_PREFIX, RunLayout, checkpoint_step, join

FORMAT_VERSION = 1
VARIABLES_FILE = "variables.npz"
DOCUMENT_FILE = "checkpoint.json"

# What `publish` must be given beside the variables; more may be added and comes back in `CheckpointInfo.document`.
META_KEYS = ("model", "characters", "charset_digest", "dataset_digest", "input_position", "metrics")

_OWN_KEYS = {"format_version", "step", "time", "variables", "files", "document_sha256"}

_MAX_LISTINGS = 10  # a training that removes checkpoints faster than they are read is no training

Arrays = dict[str, np.ndarray]
_Found = TypeVar("_Found")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint that has been verified: where it lies and what its `checkpoint.json` says."""

    path: str
    document: dict[str, Any]

    @property
    def step(self) -> int:
        return self.document["step"]

    @property
    def model(self) -> dict[str, Any]:
        """What `zoo.build` takes beside the seed. Checkpoints of before there was colour have no `num_channels`."""
        return {"num_channels": 1, **self.document["model"]}

    @property
    def normalization(self) -> dict[str, Any]:
        """`kind`, `epsilon` and the `digest` of the statistics; its arrays are among the variables.

        Checkpoints of before there was any say nothing of it.
        """
        return self.document.get("normalization", {"kind": NO_NORMALIZATION})

    @property
    def characters(self) -> Sequence[str]:
        """The characters, or names, of the classes in the order of their ids."""
        return self.document["characters"]

    @property
    def dataset_name(self) -> str:
        """The reader of what it was trained on. Checkpoints of before there were images have none."""
        return self.document.get("dataset_name", GNT)

    @property
    def charset_digest(self) -> str:
        return self.document["charset_digest"]

    @property
    def dataset_digest(self) -> str:
        return self.document["dataset_digest"]

    @property
    def input_position(self) -> dict[str, Any]:
        return self.document["input_position"]

    @property
    def trainable_scopes(self) -> tuple[str, ...]:
        """What was trained; all where none is named. Checkpoints of before one could choose have no such entry."""
        return tuple(self.document.get("trainable_scopes", ()))

    @property
    def meta(self) -> dict[str, Any]:
        """What `publish` was given beside the variables."""
        return {key: value for key, value in self.document.items() if key not in _OWN_KEYS}


# --- writing ---------------------------------------------------------------------------------------------------------


def publish(
    run: RunLayout,
    step: int,
    variables: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    guard: Callable[[], None] = lambda: None,
) -> str:
    """Publishes one checkpoint whole.

    A verified one of the same step is left as it is; a torn one makes way.

    Args:
      run: the run it belongs to.
      step: the global step.
      variables: arrays by name; names may hold `/`.
      meta: JSON values; at least `META_KEYS`.
      guard: called last before it is published; raises where the run is somebody else's by now.

    Returns:
      The checkpoint's folder.

    Raises:
      DivergedError: a variable is not finite; nothing is published.
      StorageError: the file system failed; nothing is published.
    """
    missing = [key for key in META_KEYS if key not in meta]
    if missing:
        raise ValueError(f"publish needs meta[{missing[0]!r}]")
    broken = _not_finite(variables)
    if broken:
        raise DivergedError(
            f"variable {broken} is not finite at step {step}",
            place=run.root,
            next_step="Lower --learning_rate; `train` goes on from the checkpoint before",
        )
    target = run.checkpoint(step)
    if storage.exists(target) and _stands(target):
        return target
    building = join(run.checkpoints_dir, BUILDING_PREFIX + uuid.uuid4().hex)
    try:
        storage.make_dirs(building)
        files = {VARIABLES_FILE: _write_variables(join(building, VARIABLES_FILE), variables)}
        document = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "variables": {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in variables.items()},
            "files": files,
            **meta,
        }
        document["document_sha256"] = _document_digest(document)
        storage.write_json(join(building, DOCUMENT_FILE), document)
        guard()
        storage.publish_dir(building, target)
    except BaseException:
        storage.remove(building)
        raise
    _log.info("checkpoint of step %d published: %s", step, target)
    return target


def retain(run: RunLayout, keep_last: int = 2) -> list[str]:
    """Removes all checkpoints but the newest `keep_last` verified ones and the best; sweeps what was left half built.

    Returns:
      The folders that stay, newest first.
    """
    sweep(run)
    paths = candidates(run)
    kept = [info.path for info, _ in itertools.islice(_verified(paths), keep_last)]
    kept += [
        info.path for info, _ in itertools.islice(_verified(path for path in by_merit(run) if path not in kept), 1)
    ]
    # With none that verifies, what is there may still tell somebody something.
    for path in paths if kept else []:
        if path not in kept:
            storage.discard_dir(path)  # gone at once, for those who read it meanwhile
    return sorted(kept, reverse=True)


def sweep(run: RunLayout) -> None:
    """Removes what a killed run has left half built, or half removed."""
    if storage.is_dir(run.checkpoints_dir):
        for entry in storage.list_dir(run.checkpoints_dir):
            if entry.name.startswith("_"):
                storage.remove(entry.path)


def _stands(path: str) -> bool:
    """Whether the checkpoint already at `path` is to be kept; a torn one is removed."""
    try:
        verify(path)
    except BadDataError as error:
        _log.warning("a torn checkpoint makes way for a new one: %s", error)
        storage.remove(path)
        return False
    _log.info("checkpoint %s is there already and verifies: left as it is", path)
    return True


def _write_variables(path: str, variables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Writes an .npz front to back, as HDFS needs it (`numpy.savez` wants to seek), hashing on the way."""

    def write(stream: BinaryIO) -> dict[str, Any]:
        writer = HashingWriter(stream)
        with zipfile.ZipFile(writer, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
            for name, array in variables.items():
                # A ZipInfo without a time: the same variables give the same bytes.
                with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        return {"size_bytes": writer.size_bytes, "sha256": writer.sha256}

    return storage.write_file(path, write)


def _document_digest(document: Mapping[str, Any]) -> str:
    content = {key: value for key, value in document.items() if key != "document_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _not_finite(variables: Mapping[str, np.ndarray]) -> str | None:
    """The first variable that holds NaN or Inf."""
    for name, array in variables.items():
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            return name
    return None


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
    return _read(path)[0]


def load(info: CheckpointInfo) -> Arrays:
    """The arrays of a checkpoint by name, checked once more on the way in.

    Raises:
      BadDataError: it has been damaged since.
      MissingInputError: it is gone.
    """
    return _read_variables(info.path, info.document)


def latest(run: RunLayout) -> CheckpointInfo | None:
    """The newest checkpoint that verifies. Torn ones are passed over and named in the log."""
    return _listing_anew(lambda: next((info for info, _ in _verified(candidates(run))), None))


def best(run: RunLayout) -> CheckpointInfo | None:
    """The verified checkpoint with the highest top-1 on the run's validation split; the later one of equals."""
    return _listing_anew(lambda: next((info for info, _ in _verified(by_merit(run))), None))


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
    """Of an evaluation; None where there is none, or it does not tell: nobody may fail to save for its sake."""
    try:
        found = storage.read_json(evaluation)
        return float(found["top_1"])
    except MissingInputError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        _log.warning("passed over: %s has no top_1 that can be read (%r)", evaluation, error)
        return None


def resolve(run: RunLayout, which: str) -> CheckpointInfo:
    """What `read` says of it, without its arrays."""
    return read(run, which)[0]


def read(run: RunLayout, which: str) -> tuple[CheckpointInfo, Arrays]:
    """The checkpoint that `--checkpoint` or `--restore` asks for, with its arrays by name: its files may go now.

    Args:
      run: the run that `last` and `best` are looked for in.
      which: `last`, `best` or the path of a checkpoint's folder.

    Raises:
      MissingInputError: there is none.
      BadDataError: the one at that path is torn.
    """
    if which in ("last", "best"):
        listed = candidates if which == "last" else by_merit
        found = _listing_anew(lambda: next(_verified(listed(run)), None))
        if found is None:
            names = ", ".join(path.rpartition("/")[2] for path in candidates(run)) or "nothing"
            needs = "verifies" if which == "last" else "verifies and was evaluated on a --validation_split_name"
            raise MissingInputError(
                f"no checkpoint that {needs}; there is {names}",
                place=run.checkpoints_dir,
                next_step="Train first, or give the path of a checkpoint",
            )
        return found
    if not storage.is_dir(which):
        raise MissingInputError("no checkpoint there", place=which, next_step="Give `last`, `best` or a step-… folder")
    return _read(which)


def _verified(paths: Iterable[str]) -> Iterator[tuple[CheckpointInfo, Arrays]]:
    """Those of `paths` that verify. Only damage is passed over: failing storage is an error of its own.

    Raises:
      MissingInputError: one of them is gone.
    """
    for path in paths:
        try:
            yield _read(path)
        except BadDataError as error:
            _log.warning("passed over: %s", error)


def _listing_anew(find: Callable[[], _Found]) -> _Found:
    """What `find` finds, which begins with a list: once more where a training has removed what was on it."""
    for _ in range(_MAX_LISTINGS - 1):
        try:
            return find()
        except MissingInputError as error:
            _log.info("looking again: %s", error)
    return find()


def _read(path: str) -> tuple[CheckpointInfo, Arrays]:
    document = _read_document(path)
    return CheckpointInfo(path, document), _read_variables(path, document)


def _absent(path: str, name: str) -> BadDataError | MissingInputError:
    """What is wrong where a file of a checkpoint is not there: it is published whole, and removed as a whole."""
    if storage.is_dir(path):
        return _torn(path, f"{name} is missing")
    return MissingInputError(
        "the checkpoint is gone: a training removes all but its last ones and its best",
        place=path,
        next_step="Give `last`, `best` or another one",
    )


def _torn(path: str, fact: str) -> BadDataError:
    return BadDataError(f"not a whole checkpoint: {fact}", place=path, next_step="Use another one, or remove it")


def _read_document(path: str) -> dict[str, Any]:
    try:
        document = storage.read_json(join(path, DOCUMENT_FILE))
    except MissingInputError as error:
        raise _absent(path, DOCUMENT_FILE) from error
    except ValueError as error:
        raise _torn(path, f"{DOCUMENT_FILE} is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format_version") != FORMAT_VERSION:
        raise _torn(path, f"{DOCUMENT_FILE} is not of format version {FORMAT_VERSION}")
    if document.get("document_sha256") != _document_digest(document):
        raise _torn(path, f"{DOCUMENT_FILE} does not have its own digest")
    return document


def _read_variables(path: str, document: Mapping[str, Any]) -> Arrays:
    expected = document["files"][VARIABLES_FILE]
    try:
        data = storage.read_bytes(join(path, VARIABLES_FILE))
    except MissingInputError as error:
        raise _absent(path, VARIABLES_FILE) from error
    if len(data) != expected["size_bytes"]:
        raise _torn(path, f"{VARIABLES_FILE} has {len(data)} bytes, expected {expected['size_bytes']}")
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise _torn(path, f"{VARIABLES_FILE} does not have the SHA-256 {expected['sha256']}")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise _torn(path, f"{VARIABLES_FILE} does not load ({error})") from error
    shapes = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()}
    if shapes != document["variables"]:
        raise _torn(path, f"{VARIABLES_FILE} does not hold the variables that {DOCUMENT_FILE} names")
    broken = _not_finite(arrays)
    if broken:
        raise _torn(path, f"variable {broken} is not finite")
    return arrays
