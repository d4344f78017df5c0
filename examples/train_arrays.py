"""Trains on numpy arrays that a Python program makes, one by one: no files, no conversion of your own.

    python examples/train_arrays.py FOLDER

The run is FOLDER/run. Started again, it says that the run is finished; stopped, it goes on from the last checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfos_job import FeedConfig, train_arrays

NAMES = ["bar", "cross", "frame"]
SIDE = 16


def drawing(label: int, rng: np.random.Generator) -> np.ndarray:
    """A grey picture of a shape at a random place: uint8 [SIDE, SIDE]."""
    picture = np.full((SIDE, SIDE), 255.0)
    x, y = rng.integers(3, SIDE - 6, 2)
    if label == 2:
        picture[y : y + 5, x : x + 5] = 0
        picture[y + 1 : y + 4, x + 1 : x + 4] = 255
    else:
        picture[y + 2, x : x + 5] = 0
        if label == 1:
            picture[y : y + 5, x + 2] = 0
    return np.clip(picture + rng.normal(0, 20, picture.shape), 0, 255).astype(np.uint8)


def drawings(count: int, seed: int) -> Iterator[np.ndarray]:
    """Pictures of the three shapes in turn. Each is made when it is wanted: a million need no more memory than one."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield drawing(number % 3, rng)


def main(folder: Path) -> None:
    """Trains on 600 drawings, and tests on 300 others."""
    report = train_arrays(
        drawings(600, seed=1),
        np.arange(600) % 3,
        FeedConfig(
            train_dir=str(folder / "run"),
            epoch=3,
            batch_size=32,
            image_size=SIDE,
            learning_rate=1e-3,
            validation_split_name="test",
        ),
        validation=(drawings(300, seed=2), np.arange(300) % 3),
        class_names=NAMES,
        master="local[2]",
    )
    print(f"{report['state']} after {report['step']} steps: top-1 {report['metrics']['top_1']:.3f} of 300 new drawings")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
