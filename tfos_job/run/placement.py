"""Which parameter server has which variable, or which part of one; and what a step then costs on the wire. Pure.

A step reads every variable once and sends back what changes: the gradient of a trained one, the new value of a state.
So a variable's bytes cross the wire once or twice a step, and a parameter server carries those of its variables.
docs/decisions/0006 says why `partitioned` is the default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfos_job.config.defaults import PARTITIONED, ROUND_ROBIN, WIRE_BYTES
from tfos_job.run.quantities import duration, megabytes, share

PARAMETER_SERVER, ALL_REDUCE = "parameter_server", "all_reduce"

# A kernel is left whole below this: its parts would be more messages than bytes.
_MIN_SPLIT_BYTES = 256 << 10


@dataclass(frozen=True, kw_only=True)
class PlacedVariable:
    """A variable of a network, as far as its place depends on it.

    Attributes:
      path: of Keras.
      shape: of its values.
      value_bytes: of one of them on the wire.
      is_changed: a step changes it: it is trained, or a state.
      is_trained: it has a gradient.
      is_divisible: its last axis may be cut into parts.
    """

    path: str
    shape: tuple[int, ...]
    value_bytes: int = 4
    is_changed: bool = True
    is_trained: bool = True
    is_divisible: bool = False

    @property
    def size(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)

    @property
    def read_bytes(self) -> int:
        """The bytes that come to a worker in a step."""
        return self.size * self.value_bytes

    @property
    def step_bytes(self) -> int:
        """All that it puts on the wire in a step."""
        return self.read_bytes * (2 if self.is_changed else 1)

    @property
    def column_bytes(self) -> int:
        """Those of one of the values along its last axis."""
        return self.step_bytes // self.shape[-1]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The places of all variables.

    Attributes:
      owners: the parameter server of each variable by its path; of a divided one, of each part by `part_path`.
      parts: the columns of each part of a divided variable, by the variable's path.
      step_bytes: of each parameter server: what it sends and receives in one worker's step.
    """

    owners: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    step_bytes: tuple[int, ...]


def part_path(path: str, number: int) -> str:
    """The path of a part of a divided variable; parts follow each other along the last axis."""
    return f"{path}_part{number}"


def place(variables: Sequence[PlacedVariable], num_ps_tasks: int, ps_placement: str) -> Placement:
    """Divides variables among parameter servers; the same arguments always give the same answer.

    Args:
      variables: in the network's order.
      num_ps_tasks: parameter servers.
      ps_placement: `round_robin`: one after the other, in their order. `greedy`: the largest first, each to the server
        with the fewest bytes a step. `partitioned`: so those that are not divisible; then those that are fill up what
        the servers lack to the same number of bytes.

    Returns:
      The places. No part is empty, and what would be in one part is not divided.
    """
    builder = _Builder(num_ps_tasks)
    if ps_placement == ROUND_ROBIN:
        for number, variable in enumerate(variables):
            builder.put(variable.path, variable.step_bytes, number % num_ps_tasks)
        return builder.placement
    divides = ps_placement == PARTITIONED and num_ps_tasks > 1
    for variable in sorted(variables, key=lambda it: (divides and _is_cut(it), -it.step_bytes, it.path)):
        if divides and _is_cut(variable):
            builder.divide(variable)
        else:
            builder.put(variable.path, variable.step_bytes, builder.lightest)
    return builder.placement


def _is_cut(variable: PlacedVariable) -> bool:
    return variable.is_divisible and variable.step_bytes >= _MIN_SPLIT_BYTES


class _Builder:
    """The places that were given so far."""

    def __init__(self, num_ps_tasks: int) -> None:
        self._loads = [0] * num_ps_tasks
        self._owners: dict[str, int] = {}
        self._parts: dict[str, tuple[int, ...]] = {}

    @property
    def placement(self) -> Placement:
        return Placement(owners=self._owners, parts=self._parts, step_bytes=tuple(self._loads))

    @property
    def lightest(self) -> int:
        return min(range(len(self._loads)), key=lambda ps: (self._loads[ps], ps))

    def put(self, path: str, step_bytes: int, ps: int) -> None:
        self._owners[path] = ps
        self._loads[ps] += step_bytes

    def divide(self, variable: PlacedVariable) -> None:
        """Cuts the variable so that loads become as even as its columns allow."""
        columns = self._columns(variable)
        owners = [ps for ps, count in enumerate(columns) if count]
        if len(owners) == 1:
            self.put(variable.path, variable.step_bytes, owners[0])
            return
        self._parts[variable.path] = tuple(columns[ps] for ps in owners)
        for number, ps in enumerate(owners):
            self.put(part_path(variable.path, number), columns[ps] * variable.column_bytes, ps)

    def _columns(self, variable: PlacedVariable) -> list[int]:
        """The columns for each server: as water fills vessels up to one level, and what is left of whole columns."""
        total, size = variable.shape[-1], variable.column_bytes
        order = sorted(range(len(self._loads)), key=lambda ps: (self._loads[ps], ps))
        level = 0.0
        for filled in range(1, len(order) + 1):
            below = order[:filled]
            level = (sum(self._loads[ps] for ps in below) + variable.step_bytes) / filled
            if filled == len(order) or level <= self._loads[order[filled]]:
                break
        columns = [max(0, int((level - load) // size)) for load in self._loads]
        for _ in range(total - sum(columns)):
            ps = min(range(len(columns)), key=lambda it: (self._loads[it] + columns[it] * size, it))
            columns[ps] += 1
        return columns


# --- what it costs ----------------------------------------------------------------------------------------------------


def all_reduce_bytes(num_trained: int, wire_dtype: str, num_workers: int, num_replicas: int) -> tuple[int, ...]:
    """What each worker sends and receives in a step without parameter servers, both together.

    On the ring each replica passes on 2 (R − 1) / R of all gradients, and a worker's replicas are neighbours.

    Args:
      num_trained: numbers that are trained.
      wire_dtype: a key of `config.WIRE_BYTES`.
      num_workers: on hosts of their own.
      num_replicas: R, of all workers together.
    """
    if num_workers == 1:
        return (0,)
    one_way = 2 * (num_replicas - 1) * num_trained * WIRE_BYTES[wire_dtype] // num_replicas
    return (2 * one_way,) * num_workers


def wire(
    step_bytes: Sequence[int],
    *,
    wire_dtype: str,
    ps_placement: str,
    num_ps_tasks: int,
    num_workers: int,
    link_gbit: float,
) -> dict[str, Any]:
    """What a step costs on the wire, as JSON values.

    With parameter servers a step's seconds are those of the link that takes longest: a worker's, over which all bytes
    of its step go, or that of the server with the most bytes, over which its share goes for each worker; variables come
    before gradients go. On a ring both directions are in use at the same time.

    Args:
      step_bytes: of each parameter server, by `Placement` or as measured; without one, of each worker.
      wire_dtype, ps_placement: of the flags.
      num_ps_tasks: 0 for all-reduce.
      num_workers: that take steps at the same time.
      link_gbit: the speed of every host's link, in Gbit/s.

    Returns:
      `engine`, `wire_dtype`, `ps_placement` (None without a server), `step_bytes`, `num_workers`, `largest_share` (of
      the server with the most), `link_gbit`, and `expected_step_s`.
    """
    total, largest = sum(step_bytes), max(step_bytes)
    busiest = max(total, largest * num_workers) if num_ps_tasks else largest / 2
    return {
        "engine": PARAMETER_SERVER if num_ps_tasks else ALL_REDUCE,
        "wire_dtype": wire_dtype,
        "ps_placement": ps_placement if num_ps_tasks else None,
        "step_bytes": list(step_bytes),
        "num_workers": num_workers,
        "largest_share": round(largest / total, 4) if total else 0.0,
        "link_gbit": link_gbit,
        "expected_step_s": round(busiest * 8 / (link_gbit * 1e9), 6),
    }


def wire_text(found: Mapping[str, Any]) -> str:
    """The words for `wire`."""
    step_bytes, num_workers = found["step_bytes"], found["num_workers"]
    least = f"at least {duration(found['expected_step_s'])} on links of {found['link_gbit']:g} Gbit/s"
    if found.get("engine") == ALL_REDUCE:  # absent in older reports
        if num_workers == 1:
            return "nothing: there is one worker and no parameter server"
        each = megabytes(step_bytes[0])
        return f"{each} a step to and from each worker as {found['wire_dtype']}, by all-reduce: {least}"
    parts = ""
    if len(step_bytes) > 1:
        each = ", ".join(map(megabytes, step_bytes))
        parts = f" ({found['ps_placement']}: {each}; the largest has {share(found['largest_share'])})"
    workers = f" for {num_workers} workers at once" if num_workers > 1 else ""
    return f"{megabytes(sum(step_bytes))} a step and worker as {found['wire_dtype']}{parts}: {least}{workers}"
