"""The proof that an exported network answers as its checkpoint does, before it is published. numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfos_job.config.defaults import PREDICTED_BATCH
from tfos_job.errors import JobError

MAX_DIFFERENCE = 1e-4
"""Of two probabilities: other kernels add up in another order."""


def batches(images: np.ndarray) -> list[np.ndarray]:
    """Images [n, …], n ≥ 1, in parts that a network is given at once."""
    return np.array_split(images, -(-len(images) // PREDICTED_BATCH))


def parity(name: str, expected: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Compares probabilities, record by record.

    Args:
      name: of the format, for the error.
      expected: float32 [n, num_classes], of the checkpoint.
      found: the same, of the exported network.

    Returns:
      `num_records`, `num_same_top_1` and `largest_difference`.

    Raises:
      JobError: a probability differs by more than `MAX_DIFFERENCE`, or another class is the most probable one, where
        it is more than a tie.
    """
    rows = np.arange(len(expected))
    best = expected.argmax(axis=1)
    is_same = found.argmax(axis=1) == best
    lead = expected[rows, best] - expected[rows, found.argmax(axis=1)]
    difference = float(np.abs(expected - found).max())
    if not difference <= MAX_DIFFERENCE or (lead > MAX_DIFFERENCE).any():
        raise JobError(
            f"{name} does not answer as the checkpoint: of {len(rows)} records {int(is_same.sum())} have the same "
            f"class, and probabilities differ by up to {difference:.2g}",
            next_step=f"Export without it; up to {MAX_DIFFERENCE:g} is rounding",
        )
    return {"num_records": len(rows), "num_same_top_1": int(is_same.sum()), "largest_difference": difference}
