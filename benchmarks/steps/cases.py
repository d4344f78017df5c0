"""What is measured on links of known speed: networks, batch sizes, and flags of `tfos-job train`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from steps.noise import ENDLESS
from tfos_job.commands import parser, registry
from tfos_job.config import TrainConfig
from tfos_job.errors import SettingsError
from tfos_job.protocol.topology import topology_of

NETWORKS = ("chinese_rec", "hanzi_net")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured at each speed.

    Attributes:
      network: of NETWORKS.
      computes: False for its variables alone.
      batch_size: images a step and worker.
      flags: of `tfos-job train`.
    """

    network: str
    computes: bool
    batch_size: int
    flags: tuple[str, ...]

    def __str__(self) -> str:
        words = [self.network, *([] if self.computes else ["without computing"]), f"batch {self.batch_size}"]
        return ", ".join([*words, *([" ".join(self.flags)] if self.flags else [])])

    def config(self, folder: Path) -> TrainConfig:
        """The run's flags.

        Raises:
          FlagError, SettingsError: they are not those of a run that can be measured here.
        """
        name = self.network if self.computes else f"steps.idle:{self.network}"
        own = {
            "dataset_dir": folder,
            "train_dir": folder / "run",
            "batch_size": self.batch_size,
            "model_name": name,
            "max_number_of_steps": ENDLESS,
        }
        words = [word for flag, value in own.items() for word in (f"--{flag}", str(value))]
        line = parser.parse(registry.COMMANDS, ["train", *words, *self.flags])
        changed = [flag for flag, value in own.items() if str(line.given[flag]) != str(value)]
        if changed:
            raise SettingsError("the benchmark gives it itself", place=f"--{changed[0]}")
        config: TrainConfig = parser.configuration(line.command, line.given)
        if topology_of(config, None).num_driver_ps_tasks:
            raise SettingsError("a parameter server needs a host of its own here", place="--ps_place driver")
        return config


def cases_of(
    networks: Sequence[str], batch_sizes: Sequence[int], sets_of_flags: Sequence[tuple[str, ...]]
) -> list[Case]:
    """In the order of their turns. Without computing a batch's size is next to nothing, too: the smallest will do."""
    return [
        Case(network, computes, batch_size, flags)
        for flags in sets_of_flags
        for network in networks
        for computes in (True, False)
        for batch_size in (batch_sizes if computes else [min(batch_sizes)])
    ]


def split_at_dashes(words: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """The benchmark's own words, and the sets of flags behind each `--`; one empty set where there is none."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts[0], [tuple(part) for part in parts[1:]] or [()]
