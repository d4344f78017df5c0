"""A random sample of a split's records.

Shards have no index, so finding a record takes reading all records before it. At most `_MAX_SHARDS` shards, chosen at
random, are read, and at most the first `_MAX_PREFIX_BYTES` of each. Every record in these parts has the same
probability. A smaller dataset is sampled as a whole.
"""

from __future__ import annotations

import numpy as np

from tfos_job.errors import BadDataError
from tfos_job.formats.excerpt import read_positions
from tfos_job.formats.manifest import Manifest, shard_paths
from tfos_job.layout import SplitLayout

_MAX_SHARDS = 8
_MAX_PREFIX_BYTES = 16 << 20


def choose(contents: Manifest, num_images: int, seed: int) -> tuple[dict[int, list[int]], int]:
    """Chooses records; returns their positions by number of the shard, and the number of eligible records."""
    draw = np.random.default_rng(seed)
    filled = np.flatnonzero([shard.num_records for shard in contents.shards])
    chosen = np.sort(draw.permutation(filled)[:_MAX_SHARDS])
    shards = [contents.shards[i] for i in chosen]
    eligible = [max(1, int(s.num_records * min(1.0, _MAX_PREFIX_BYTES / s.size_bytes))) for s in shards]
    picked = np.sort(draw.permutation(sum(eligible))[:num_images])
    ends = np.cumsum(eligible)
    positions: dict[int, list[int]] = {}
    for record in picked:
        at = int(np.searchsorted(ends, record, side="right"))
        positions.setdefault(int(chosen[at]), []).append(int(record - ends[at] + eligible[at]))
    return positions, sum(eligible)


def read(split: SplitLayout, contents: Manifest, *, num_images: int, seed: int) -> tuple[list[bytes], list[str], int]:
    """The Examples of a sample, the paths of the shards that they are in, and the number of eligible records.

    Raises:
      BadDataError: there are no records, or one is damaged.
      MissingInputError: a shard does not exist.
    """
    positions, num_eligible = choose(contents, num_images, seed)
    if not positions:
        raise BadDataError("the split has no records", place=split.root)
    paths = shard_paths(split, contents)
    examples = []
    for shard, wanted in positions.items():
        found = read_positions(paths[shard], wanted)
        examples += [found[position].example for position in wanted]
    return examples, [paths[shard] for shard in positions], num_eligible
