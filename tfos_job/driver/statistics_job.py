"""Statistics of a split's pixels, computed on Spark unless the dataset has them. Runs on the driver."""

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
from tfos_job.statistics.task import StatisticsTask, TaskShard

log = logging.getLogger(__name__)

_GUARD_S = 0.5
_CANCEL_S = 5.0  # for running tasks to end before their folder is removed


def statistics_of(
    context: SparkContext,
    dataset: DatasetLayout,
    manifest: Manifest,
    subject: Subject,
    *,
    run: RunLayout,
    guard: Callable[[], None],
) -> tuple[Statistics, str]:
    """Returns the dataset's statistics of `subject`; computes and keeps them in the dataset if it has none.

    If the dataset is read-only, they are kept in the run's folder.

    Args:
      context: of the driver.
      dataset: dataset of `subject`.
      manifest: of the subject's split.
      subject: of the statistics.
      run: its scratch folder, which driver and executors share, is used and removed at the end.
      guard: raises if the job must end.

    Returns:
      The statistics, and their path.

    Raises:
      BadDataError: a record is damaged.
      JobError: storage fails, or `guard` raises it.
    """
    paths = (dataset.statistics(subject.split_name, subject.image_size, subject.kind, subject.key), run.statistics)
    if existing := _existing(paths, subject):
        return existing
    began_s = time.monotonic()
    limit = MAX_WHITENING_RECORDS if subject.kind == WHITENING else manifest.num_records
    log.info("Computing %s statistics of %d records", subject.kind, min(limit, manifest.num_records))
    storage.make_dirs(run.scratch_dir)
    todo = _tasks(dataset, manifest, subject, limit, run.scratch_dir, context.defaultParallelism)

    def make() -> Statistics:
        outputs = tasks.results(tasks.run(context, "statistics", task.run, todo))
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
    # Another run may have computed and written them meanwhile, and may read them soon: its file stays.
    kept = _existing(paths, subject) or _keep(found, *paths)
    log.info("%s of %d records: %s (%.1f s)", subject.kind, found.num_records, kept[1], time.monotonic() - began_s)
    return kept


def _existing(paths: tuple[str, ...], subject: Subject) -> tuple[Statistics, str] | None:
    for path in paths:
        found = pixel_statistics.read_fitting(path, subject)
        if found is not None:
            return found, path
    return None


def _keep(found: Statistics, path: str, spare: str) -> tuple[Statistics, str]:
    """Writes to `path`, or to `spare` if that fails."""
    try:
        pixel_statistics.write(path, found)
    except JobError as error:
        log.warning("Kept in %s, not in the dataset, where every run would find them: %s", spare, error)
        pixel_statistics.write(spare, found)
        return found, spare
    return found, path


def _tasks(
    dataset: DatasetLayout, manifest: Manifest, subject: Subject, limit: int, scratch_dir: str, num_slots: int
) -> list[StatisticsTask]:
    """Returns one task for each slot: each task starts TensorFlow once and holds one sum."""
    shards, first = [], 0
    for path, shard in zip(shard_paths(dataset.split(subject.split_name), manifest), manifest.shards, strict=True):
        shards.append(
            TaskShard(
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
        StatisticsTask(
            subject=subject,
            shards=tuple(by_path[path] for path, _ in part),
            num_records=manifest.num_records,
            limit=limit,
            output=join(scratch_dir, f"sums-{number:05d}.npz"),
        )
        for number, part in enumerate(parts)
    ]


def _guarded(make: Callable[[], Statistics], guard: Callable[[], None], cancel: Callable[[], None]) -> Statistics:
    """Calls `make` on a thread, so that this one reacts to signals: eigenvectors can take minutes."""
    made: Future[Statistics] = Future()

    def run() -> None:
        try:
            made.set_result(make())
        except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
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
    """Adds the outputs one after the other: sums of whole images take 128 MiB each."""
    total = pixel_statistics.from_bytes(storage.read_bytes(outputs[0]))
    for path in outputs[1:]:
        for name, array in pixel_statistics.from_bytes(storage.read_bytes(path)).items():
            total[name] += array
    return total
