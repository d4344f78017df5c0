"""The flags of `synth`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.defaults import DEFAULT_CHARSET_SIZE
from tfos_job.config.flags import Flags, flag, path


@dataclass(frozen=True, kw_only=True)
class SynthConfig(Flags):
    """`synth`: GNT shards of rendered characters, one shard a synthetic writer."""

    gnt_dir: str = path("folder to write the GNT shards to")
    charset_size: int = flag(
        "number of classes: the first N of GB2312 level 1", 30, minimum=1, maximum=DEFAULT_CHARSET_SIZE
    )
    num_writers: int = flag("number of synthetic writers, one GNT file each", 40, minimum=1)
    first_writer: int = flag(
        "number of the first writer; writers with different numbers have different hands", 1, minimum=0
    )
    seed: int = flag("random seed; the same seed writes the same bytes", 0)
