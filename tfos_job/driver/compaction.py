"""`convert --compact`: the shards of several generations, copied into those of a single one."""

from __future__ import annotations

from tfos_job import storage
from tfos_job.config import ConvertConfig
from tfos_job.conversion.compaction import num_generations, plan_compaction, require_same_records
from tfos_job.conversion.generation import build_aside, publish
from tfos_job.conversion.locked_split import LockedSplit
from tfos_job.conversion.split_manifest import compacted_manifest
from tfos_job.driver import shards
from tfos_job.driver.on_demand import Spark
from tfos_job.formats.manifest import Manifest


def compact(spark: Spark, config: ConvertConfig, target: LockedSplit, live: Manifest) -> Manifest:
    """Publishes a generation with all records of the split, if they are in several. Returns the manifest that is live.

    Raises:
      BadDataError: a shard is damaged, or the shards hold other records than the manifest says.
      BusyError: the dataset's lock is somebody else's by now.
    """
    if num_generations(live) == 1:
        return live
    groups = plan_compaction(live, target.layout, config.target_shard_mb << 20)
    with build_aside(target.layout, live) as building:
        written = shards.rewrite_shards(spark.sparkContext, groups, work_dir=building.work_dir, name="compact")
        manifest = compacted_manifest(
            live,
            generation=building.generation,
            gnt_dir=storage.absolute(config.input_dir),
            shards=shards.collect(written.results, building.shards_dir, building.folder),
        )
        require_same_records(target.layout, live, manifest, written.class_counts)
        publish(target, manifest, None, building, ())
    return manifest
