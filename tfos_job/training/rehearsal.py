"""Builds a training's network once before anything is started, in a process of its own (`host/calls.py`).

So faults of a user's network, of scopes or of weights are found before the first container is requested.
"""

from __future__ import annotations

from typing import Any

from tfos_job.host import calls
from tfos_job.networks import registry
from tfos_job.run.json_values import from_json
from tfos_job.run.specs import RehearsalSpec
from tfos_job.training.finetuning import load_weights, train_only


def rehearse(request: dict[str, Any]) -> None:
    """Does what an engine does at its start.

    Args:
      request: a `RehearsalSpec` as JSON values.

    Raises:
      JobError: what the engine would raise.
    """
    spec = from_json(RehearsalSpec, request)
    model = registry.build(**vars(spec.model), seed=0)
    train_only(model, spec.trainable_scopes)
    if spec.initial_weights is not None:
        load_weights(model, spec.initial_weights)


if __name__ == "__main__":
    calls.answer(rehearse)
