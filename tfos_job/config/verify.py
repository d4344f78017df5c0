"""The flags of `verify`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.flags import Flags, flag, path
from tfos_job.config.values import SPLIT_NAME


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(Flags):
    """`verify`: the proof of a dataset's splits, and that they have nothing in common."""

    dataset_dir: str = path("folder of the dataset")
    dataset_split_name: str = flag(
        "split to verify, or `all`, which also compares the pixels of the splits",
        "all",
        metavar="NAME|all",
        form=SPLIT_NAME,
    )
    gnt_dir: str | None = path(
        "folder of GNT files to compare with the converted records, or `auto` for the folder that each split was "
        "converted from; `auto` fails if a split was not converted from GNT files (default: GNT files are not read)",
        None,
        metavar="DIR|auto",
        words=("auto",),
    )
