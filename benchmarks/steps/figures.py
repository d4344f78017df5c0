"""What a network's step has to carry and to do besides computing, by its variables. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfos_job.run.network_variables import known_variables
from tfos_job.run.placement import PlacedVariable, place
from tfos_job.run.specs import ModelSpec

# Of reading and updating without a limit: what benchmarks/README.md has for one worker and one server, by wire.py.
_S_PER_WIRE_BYTE = 0.56e-9
_S_PER_PARAMETER = 4.3e-9
_S_PER_STEP = 2e-3
SERVER_CPU_SHARE = 0.75
"""Of these seconds: the servers' half of the processor time that they take."""


def variables_of(network: str, image_size: int, num_classes: int, wire_dtype: str) -> list[PlacedVariable]:
    spec = ModelSpec(model_name=network, num_classes=num_classes, image_size=image_size, num_channels=1, keep_prob=0.8)
    found = known_variables(spec, (), wire_dtype)
    assert found is not None  # of NETWORKS
    return found


def server_bytes(variables: Sequence[PlacedVariable], num_ps_tasks: int, ps_placement: str) -> tuple[float, ...]:
    """Of the variables on each server: each is read and sent back, so that is half of a step's bytes."""
    return tuple(both / 2 for both in place(variables, num_ps_tasks, ps_placement).step_bytes)


def software_seconds(variables: Sequence[PlacedVariable]) -> float:
    """What reading and updating these variables takes without a limit of the links."""
    wire_bytes = sum(variable.step_bytes for variable in variables)
    num_parameters = sum(math.prod(variable.shape) for variable in variables)
    return _S_PER_WIRE_BYTE * wire_bytes + _S_PER_PARAMETER * num_parameters + _S_PER_STEP
