"""Statistics of a split's pixels, made on Spark where the dataset has none yet that fit. Runs on the driver."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

from pyspark import SparkContext

from tfos_job import storage
from tfos_job.driver import tasks
from tfos_job.errors import BadDataError, JobError
from tfos_job.formats.manifest import Manifest, shard_paths
from tfos_job.layout import DatasetLayout, RunLayout, join
from tfos_job.protocol.topology import assign_shards
from tfos_job.statistics import pixel_statistics, task
from tfos_job.statistics.pixel_statistics import MAX_WHITENING_RECORDS, WHITENING, Arrays, Statistics, Subject
from tfos_job.statistics.task import SumShard, SumTask

log = logging.getLogger(__name__)

_GUARD_S = 0.5
_CANCEL_S = 5.0  # for tasks to end before their folder goes; they may be in the middle of something


def statistics_of(
    context: SparkContext,
    dataset: DatasetLayout,
    manifest: Manifest,
    subject: Subject,
    *,
    run: RunLayout,
    guard: Callable[[], None],
) -> tuple[Statistics, str]:
    """The dataset's own where they fit `subject`; else they are made, and kept beside its charset.

    A dataset may be there for reading alone: then the run keeps them.

    Args:
      context: the driver's.
      dataset: of which `subject` is.
      manifest: of the subject's split.
      subject: what to look at.
      run: whose scratch folder driver and executors see, and nobody else uses; it is removed at the end.
      guard: raises where the job is to end.

    Returns:
      The statistics, and the path that they lie at.

    Raises:
      BadDataError: a damaged record.
      JobError: what storage or `guard` raises.
    """
    paths = (dataset.statistics(subject.split_name, subject.image_size, subject.kind, subject.key), run.statistics)
    if there := _there(paths, subject):
        return there
    began_s = time.monotonic()
    limit = MAX_WHITENING_RECORDS if subject.kind == WHITENING else manifest.num_records
    storage.make_dirs(run.scratch_dir)
    todo = _tasks(dataset, manifest, subject, limit, run.scratch_dir, context.defaultParallelism)

    def make() -> Statistics:
        outputs = tasks.results(tasks.run(context, "statistics", task.sum_pixels, todo))
        return pixel_statistics.statistics_of(subject, _sum(outputs))

    try:
        found = _guarded(make, guard, context.cancelAllJobs)
    finally:
        storage.discard_dir(run.scratch_dir)
    if found.num_records != min(limit, manifest.num_records):
        raise BadDataError(
            f"{found.num_records} records were summed, expected {min(limit, manifest.num_records)}",
            place=dataset.split(subject.split_name).root,
            next_step="Run `verify` on the split",
        )
    # Another run may have made them meanwhile, and be about to read its own.
    kept = _there(paths, subject) or _keep(found, *paths)
    log.info("%s of %d records: %s (%.1f s)", subject.kind, found.num_records, kept[1], time.monotonic() - began_s)
    return kept


def _there(paths: tuple[str, ...], subject: Subject) -> tuple[Statistics, str] | None:
    for path in paths:
        found = pixel_statistics.read_fitting(path, subject)
        if found is not None:
            return found, path
    return None


def _keep(found: Statistics, path: str, spare: str) -> tuple[Statistics, str]:
    """Writes to the first of the two places that takes them."""
    try:
        pixel_statistics.write(path, found)
    except JobError as error:
        log.warning("Kept in %s, not in the dataset, where every run would find them: %s", spare, error)
        pixel_statistics.write(spare, found)
        return found, spare
    return found, path


def _tasks(
    dataset: DatasetLayout, manifest: Manifest, subject: Subject, limit: int, scratch_dir: str, num_slots: int
) -> list[SumTask]:
    """One for each slot: each starts a TensorFlow and has a sum of its own."""
    shards, first = [], 0
    for path, shard in zip(shard_paths(dataset.split(subject.split_name), manifest), manifest.shards, strict=True):
        shards.append(
            SumShard(
                path=path,
                size_bytes=shard.size_bytes,
                sha256=shard.sha256,
                num_records=shard.num_records,
                first_index=first,
            )
        )
        first += shard.num_records
    by_path = {shard.path: shard for shard in shards if shard.num_records}
    parts = assign_shards([(shard.path, shard.num_records) for shard in shards], min(num_slots, len(by_path)))
    return [
        SumTask(
            subject=subject,
            shards=tuple(by_path[path] for path, _ in part),
            num_records=manifest.num_records,
            limit=limit,
            output=join(scratch_dir, f"sums-{number:05d}.npz"),
        )
        for number, part in enumerate(parts)
    ]


def _guarded(make: Callable[[], Statistics], guard: Callable[[], None], cancel: Callable[[], None]) -> Statistics:
    """On a thread, so that a signal is answered while Spark is at work, or numpy: eigenvectors can take minutes."""
    made: Future[Statistics] = Future()

    def run() -> None:
        try:
            made.set_result(make())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            made.set_exception(error)

    threading.Thread(target=run, name="statistics", daemon=True).start()
    try:
        while not wait([made], timeout=_GUARD_S).done:
            guard()
    except BaseException:
        cancel()
        wait([made], timeout=_CANCEL_S)
        raise
    return made.result()


def _sum(outputs: list[str]) -> Arrays:
    """One after the other: sums of whole images are 128 MiB each."""
    total = pixel_statistics.from_bytes(storage.read_bytes(outputs[0]))
    for path in outputs[1:]:
        for name, array in pixel_statistics.from_bytes(storage.read_bytes(path)).items():
            total[name] += array
    return total
