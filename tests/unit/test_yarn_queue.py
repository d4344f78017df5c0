"""What a queue lacks, from documents as Hadoop 3.5's ResourceManager wrote them, without what is not read."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tfos_job.doctor import yarn_queue
from tfos_job.doctor.resource_manager import ResourceManager, addresses

ID = "application_1796005567755_0003"


def resource(memory: int, vcores: int, gpus: int) -> dict[str, Any]:
    parts = {"memory-mb": memory, "vcores": vcores, "yarn.io/gpu": gpus}
    return {
        "memory": memory,
        "vCores": vcores,
        "resourceInformations": {"resourceInformation": [{"name": key, "value": parts[key]} for key in parts]},
    }


def app(*requests: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    return {
        "app": {
            "id": ID,
            "queue": "root.gpu",
            "resourceRequests": [
                {"resourceName": name, "capability": capability, "numContainers": number}
                for number, capability in requests
                for name in ("*", "/default-rack")
            ],
        }
    }


def scheduler(limit: dict[str, Any], used: dict[str, Any]) -> dict[str, Any]:
    other = {"queueName": "default", "resourcesUsed": resource(0, 0, 0)}
    part = {"partitionName": "", "effectiveMaxResource": limit}
    labelled = {"partitionName": "fast", "effectiveMaxResource": resource(1, 1, 1)}
    queue = {
        "queueName": "gpu",
        "queuePath": "root.gpu",
        "resourcesUsed": used,
        "capacities": {"queueCapacitiesByPartition": [labelled, part]},
    }
    info = {"type": "capacityScheduler", "queueName": "root", "queues": {"queue": [other, queue]}}
    return {"scheduler": {"schedulerInfo": info}}


def nodes(*free: dict[str, Any], lost: dict[str, Any] | None = None) -> dict[str, Any]:
    found = [
        {"nodeHostName": f"host{number}", "state": "RUNNING", "availableResource": each}
        for number, each in enumerate(free)
    ]
    if lost is not None:
        found.append({"nodeHostName": "gone", "state": "LOST", "availableResource": lost})
    return {"nodes": {"node": found}}


ROOM = resource(48210, 48, 12)


def test_no_gpu_is_free() -> None:
    found = yarn_queue.lack(
        app((1, resource(2048, 4, 1))),
        scheduler(resource(48210, 48, 2), resource(4096, 8, 2)),
        nodes(resource(16070, 16, 4)),
    )
    assert found == "queue gpu has 0 of 1 yarn.io/gpu free"


def test_each_resource_that_is_short_is_named() -> None:
    found = yarn_queue.lack(
        app((9, resource(7680, 8, 0))),
        scheduler(ROOM, resource(4736, 41, 0)),
        nodes(resource(15302, 8, 4), resource(12966, 7, 4)),
    )
    assert found == "queue gpu has 28,268 of 69,120 MiB of memory and 7 of 72 vcores free"


def test_what_a_lost_node_has_is_not_free() -> None:
    found = yarn_queue.lack(
        app((1, resource(768, 1, 1))), scheduler(ROOM, ROOM | {}), nodes(lost=resource(16070, 16, 4))
    )
    assert found == "queue gpu has 0 of 768 MiB of memory, 0 of 1 vcores and 0 of 1 yarn.io/gpu free"


def test_room_in_parts_that_no_node_has_in_one() -> None:
    found = yarn_queue.lack(
        app((1, resource(1024, 8, 0))),
        scheduler(ROOM, resource(0, 0, 0)),
        nodes(resource(4096, 5, 0), resource(4096, 5, 0)),
    )
    assert found == "no node of queue gpu has 1,024 MiB of memory and 8 vcores free at once"


def test_room_that_is_not_given() -> None:
    found = yarn_queue.lack(
        app((2, resource(1024, 1, 0))), scheduler(ROOM, resource(0, 0, 0)), nodes(resource(4096, 5, 0))
    )
    assert found == "queue gpu has room, but has not given 2 containers"


def test_an_application_that_waits_for_nothing() -> None:
    assert yarn_queue.lack(app(), scheduler(ROOM, ROOM), nodes()) == ""
    assert yarn_queue.lack({"app": {"queue": "gpu"}}, {}, {}) == ""


def test_a_fair_scheduler_without_resource_types() -> None:
    leaf = {
        "queueName": "root.gpu",
        "maxResources": {"memory": 4096, "vCores": 8},
        "usedResources": {"memory": 3072, "vCores": 1},
    }
    fair = {"scheduler": {"schedulerInfo": {"type": "fairScheduler", "rootQueue": {"childQueues": {"queue": [leaf]}}}}}
    found = yarn_queue.lack(app((1, {"memory": 2048, "vCores": 1})), fair, nodes({"memory": 16070, "vCores": 16}))
    assert found == "queue gpu has 1,024 of 2,048 MiB of memory free"


def test_hosts_of_running_nodes() -> None:
    assert yarn_queue.running_hosts(nodes(ROOM, ROOM, lost=ROOM)) == {"host0", "host1"}
    assert yarn_queue.running_hosts({"nodes": None}) == frozenset()


# --- where it is asked -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"yarn.resourcemanager.hostname": "rm"}, ["http://rm:8088"]),
        ({"yarn.resourcemanager.webapp.address": "rm:80", "yarn.resourcemanager.hostname": "other"}, ["http://rm:80"]),
        ({"yarn.resourcemanager.webapp.address": "${unknown}:80"}, []),
        ({"yarn.http.policy": "HTTPS_ONLY", "yarn.resourcemanager.hostname": "rm"}, ["https://rm:8090"]),
        (
            {
                "yarn.resourcemanager.ha.enabled": "true",
                "yarn.resourcemanager.ha.rm-ids": "one, two",
                "yarn.resourcemanager.hostname.one": "first",
                "yarn.resourcemanager.webapp.address.two": "second:80",
            },
            ["http://first:8088", "http://second:80"],
        ),
    ],
)
def test_the_addresses_in_hadoops_settings(settings: dict[str, str], expected: list[str]) -> None:
    assert addresses(settings) == expected


@pytest.fixture
def answers() -> Iterator[tuple[str, dict[str, Any]]]:
    """The URL of a ResourceManager, and its documents by path; another path is its refusal."""
    documents: dict[str, Any] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = documents.get(self.path.removeprefix("/ws/v1/cluster/"))
            self.send_response(401 if document is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", documents
        server.shutdown()
        thread.join()


def test_the_second_resource_manager_answers(
    answers: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, documents = answers
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    documents |= {
        f"apps/{ID}": app((1, resource(768, 1, 1))),
        "scheduler": scheduler(ROOM, resource(0, 0, 12)),
        "nodes": nodes(resource(16070, 16, 4)),
    }
    settings = {
        "yarn.resourcemanager.ha.enabled": "true",
        "yarn.resourcemanager.ha.rm-ids": "one,two",
        "yarn.resourcemanager.webapp.address.one": "127.0.0.1:9",
        "yarn.resourcemanager.webapp.address.two": url.removeprefix("http://"),
    }
    lines = [f"<property><name>{key}</name><value>{value}</value></property>" for key, value in settings.items()]
    (tmp_path / "yarn-site.xml").write_text(f"<configuration>{''.join(lines)}</configuration>")
    manager = ResourceManager.of_conf(tmp_path)
    assert manager.lack(ID) == "queue gpu has 0 of 1 yarn.io/gpu free"
    assert manager.running_hosts() == {"host0"}


def test_no_answer_is_no_error(answers: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    url, documents = answers
    assert ResourceManager([url]).lack(ID) == ""  # Kerberos
    assert ResourceManager([url]).running_hosts() is None
    documents |= {f"apps/{ID}": [], "scheduler": None, "nodes": "of another kind"}
    assert ResourceManager([url]).lack(ID) == ""
    assert ResourceManager([url]).running_hosts() is None
    assert ResourceManager.of_conf(None).lack(ID) == ""
    assert ResourceManager.of_conf(tmp_path).running_hosts() is None
    (tmp_path / "yarn-site.xml").write_text("no XML")
    assert ResourceManager.of_conf(tmp_path).running_hosts() is None
