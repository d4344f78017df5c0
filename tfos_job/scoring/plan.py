"""The plan of `infer`: which files are one partition, and what its results follow from. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.scoring.inputs import PICTURE, InputFile

FORMAT_VERSION = 1
MIN_PARTITIONS = 16
"""For less data than that a partition would have too little: several executors share also a small input."""
LEAST_BYTES, MOST_BYTES = 1 << 20, 64 << 20
_PICTURE_BYTES = 16 << 10  # what looking at a picture costs beside its bytes


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that answers. It is sent to executors, so it holds JSON values alone.

    Attributes:
      train_dir: folder of its run; empty for an exported one.
      checkpoint: of the run: path of the checkpoint's folder.
      export_dir: folder of an exported version; empty for one of a run.
      model_name: of the run: its own network, as the user has named it.
      digest: SHA-256 over weights, classes and preprocessing.
      step: of the checkpoint; None for a network without a training.
    """

    train_dir: str = ""
    checkpoint: str = ""
    export_dir: str = ""
    model_name: str | None = None
    digest: str
    step: int | None

    @property
    def place(self) -> str:
        """For messages."""
        return self.checkpoint or self.export_dir


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the results in a folder follow from: where one of them is another, results are others.

    Attributes:
      input: `--input`, for people.
      input_digest: of the files (`Inputs.digest`).
      num_partitions: each becomes one file.
    """

    input: str
    input_digest: str
    num_files: int
    num_partitions: int
    model_digest: str
    step: int | None
    model: str
    output_format: str
    top_k: int
    raw_image: bool

    def to_json(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}

    def differences(self, value: Mapping[str, Any]) -> list[str]:
        """What is another in a stored plan, in words; empty if results of that one are results of this one."""
        words = {
            "format_version": "the format of the folder",
            "input_digest": "the input",
            "num_partitions": "the partitions",
            "model_digest": "the model",
            "output_format": "--output_format",
            "top_k": "--top_k",
            "raw_image": "--raw_image",
        }
        own, found = self.to_json(), []
        for name, word in words.items():
            if value.get(name) != own[name]:
                told = "" if name.endswith("_digest") else f" (it was {value.get(name)})"
                found.append(word + told)
        return found


def partitions(files: Sequence[InputFile]) -> list[tuple[InputFile, ...]]:
    """The files of each partition, in order: whole files, about as many bytes each, wherever they will be read.

    It follows from the files alone, so that an interrupted job finds its partitions again on any number of executors.
    """
    total = sum(map(_weight, files))
    target = min(max(total // MIN_PARTITIONS, LEAST_BYTES), MOST_BYTES)
    groups: list[list[InputFile]] = []
    weight = 0
    for file in files:
        if not groups or weight + _weight(file) > target:
            groups.append([])
            weight = 0
        groups[-1].append(file)
        weight += _weight(file)
    return [tuple(group) for group in groups]


def _weight(file: InputFile) -> int:
    return file.size_bytes + (_PICTURE_BYTES if file.kind == PICTURE else 0)
