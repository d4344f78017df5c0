"""Commands on data small enough for a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.command import Command, StartCommand, run
from tfos_job.config import SynthConfig
from tfos_job.data.synth import synthesize


@pytest.fixture
def start() -> Iterator[StartCommand]:
    """Starts commands, and ends those that a failed test leaves."""
    commands: list[Command] = []

    def start_command(*args: object) -> Command:
        commands.append(Command(*map(str, args)))
        return commands[-1]

    yield start_command
    for command in commands:
        command.end()


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits `train` (8 writers) and `test` (2 other writers) of 10 classes."""
    folder = tmp_path_factory.mktemp("small")
    synthesize(SynthConfig(gnt_dir=str(folder / "gnt/train"), charset_size=10, num_writers=8))
    synthesize(SynthConfig(gnt_dir=str(folder / "gnt/test"), charset_size=10, num_writers=2, first_writer=9))
    dataset = folder / "dataset"
    for split, charset in (("train", ["--charset_size", "10"]), ("test", [])):
        run(
            "convert",
            "--gnt_dir",
            folder / "gnt" / split,
            "--dataset_dir",
            dataset,
            "--dataset_split_name",
            split,
            *charset,
        )
    return dataset
