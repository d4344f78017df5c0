"""What an application of YARN waits for and its queue lacks, from the ResourceManager's REST. Pure.

The documents are those of `/ws/v1/cluster/apps/ID`, `/scheduler` and `/nodes`, as Hadoop 3.5 writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_RUNNING = "RUNNING"
# Names of resources, and what people read; others, such as yarn.io/gpu, are counted and keep their names.
_MEMORY, _VCORES = "memory-mb", "vcores"
_MAXIMA = ("effectiveMaxResource", "maxResources", "maxEffectiveCapacity")
_USED = ("resourcesUsed", "usedResources")

Resources = Mapping[str, int]


def running_hosts(nodes: Mapping[str, Any]) -> frozenset[str]:
    """The hosts whose NodeManagers run, by their names in YARN, from `/nodes`."""
    return frozenset(node["nodeHostName"] for node in _nodes(nodes))


def lack(app: Mapping[str, Any], scheduler: Mapping[str, Any], nodes: Mapping[str, Any]) -> str:
    """What is missing for the containers that an application waits for, as part of a sentence.

    Args:
      app: from `/apps/ID`.
      scheduler: from `/scheduler`.
      nodes: from `/nodes`.

    Returns:
      Such as "queue gpu has 0 of 1 yarn.io/gpu free"; empty if the application waits for nothing.
    """
    app = app["app"]
    name = str(app.get("queue", "")).rpartition(".")[2]
    wanted = [
        (resources(request["capability"]), int(request["numContainers"]))
        for request in app.get("resourceRequests") or ()
        if request.get("resourceName") == "*" and request.get("numContainers")
    ]
    if not wanted:
        return ""
    needed = _sum(({key: each * number for key, each in amounts.items()}) for amounts, number in wanted)
    free_on = [resources(node.get("availableResource") or {}) for node in _nodes(nodes)]
    free = _free(_sum(free_on), _queue(scheduler, name))
    short = [
        _amount(key, free.get(key, 0), number) for key, number in needed.items() if number > max(free.get(key, 0), 0)
    ]
    if short:
        return f"queue {name} has {_listed(short)} free"
    largest = max((amounts for amounts, _ in wanted), key=lambda amounts: amounts.get(_MEMORY, 0))
    if not any(all(node.get(key, 0) >= number for key, number in largest.items()) for node in free_on):
        words = _listed([_amount(key, None, number) for key, number in largest.items() if number])
        return f"no node of queue {name} has {words} free at once"
    number = sum(number for _, number in wanted)
    return f"queue {name} has room, but has not given {number} container{'' if number == 1 else 's'}"


def resources(found: Mapping[str, Any]) -> dict[str, int]:
    """A `Resource` of YARN by the names of its parts."""
    parts = (found.get("resourceInformations") or {}).get("resourceInformation") or ()
    amounts = {str(part["name"]): int(part["value"]) for part in parts}
    # Hadoop 2 has these two alone.
    return amounts or {_MEMORY: int(found.get("memory", 0)), _VCORES: int(found.get("vCores", 0))}


def _nodes(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [node for node in (document.get("nodes") or {}).get("node") or () if node.get("state") == _RUNNING]


def _free(on_nodes: Resources, queue: Mapping[str, Any] | None) -> dict[str, int]:
    """What the queue may still use, of what the nodes have."""
    free = dict(on_nodes)
    limit, used = _first(queue, _MAXIMA), _first(queue, _USED)
    if limit is None or used is None:
        return free
    for key, number in limit.items():
        if number:  # 0 of a resource that the queue does not name
            free[key] = max(0, min(free.get(key, 0), number - used.get(key, 0)))
    return free


def _first(queue: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, int] | None:
    """The first of these resources that the queue, or its part without a label, has."""
    if queue is None:
        return None
    parts = (queue.get("capacities") or {}).get("queueCapacitiesByPartition") or ()
    unlabelled: Mapping[str, Any] = next((part for part in parts if not part.get("partitionName")), {})
    return next((resources(place[name]) for name in names for place in (unlabelled, queue) if place.get(name)), None)


def _queue(document: Any, name: str) -> Mapping[str, Any] | None:
    """The queue of that name in whatever tree its scheduler writes: children lie in `queues` or `childQueues`."""
    return next((queue for queue in _queues(document) if str(queue["queueName"]).rpartition(".")[2] == name), None)


def _queues(document: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(document, Mapping):
        if "queueName" in document and any(key in document for key in _USED):
            yield document
        for value in document.values():
            yield from _queues(value)
    elif isinstance(document, list):
        for value in document:
            yield from _queues(value)


def _sum(each: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for amounts in each:
        for key, number in amounts.items():
            total[key] = total.get(key, 0) + number
    return total


def _amount(name: str, free: int | None, needed: int) -> str:
    of = "" if free is None else f"{free:,} of "
    if name == _MEMORY:
        return f"{of}{needed:,} MiB of memory"
    return f"{of}{needed:,} {name}"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
