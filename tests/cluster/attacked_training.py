"""`tfos-job` with keys that are told, in a training whose nodes come when they may: for tests that attack it.

    python -m tests.cluster.attacked_training FOLDER train …

Into FOLDER it writes `secrets` (JSON: a name and a value in hex a line) and `ports` (JSON: a number and a name a line).
Once the rendezvous serves, and before Spark starts the nodes, it waits until there is a file FOLDER/go.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.listeners import ACCUMULATORS, HELD, LINE, PY4J, RENDEZVOUS
from tfos_job.protocol import frames

POLL_S = 0.05


def tell(folder: Path, name: str, *values: object) -> None:
    with (folder / name).open("a") as file:
        print(json.dumps(values), file=file, flush=True)


def tell_keys(folder: Path) -> None:
    """Must come before any module that imports the function by its name."""
    make = frames.new_key

    def new_key() -> bytes:
        key = make()
        tell(folder, "secrets", "the job's key", key.hex())
        return key

    frames.new_key = new_key


def tell_of_spark(folder: Path, sc: Any) -> None:
    """Its secrets, and the ports that nothing but the driver's process knows of."""
    gateway = sc._gateway.gateway_parameters
    tell(folder, "ports", gateway.port, PY4J)
    address = sc._accumulatorServer.server_address
    if not isinstance(address, str):
        tell(folder, "ports", address[1], ACCUMULATORS)
    for name, value in (
        ("py4j's token", gateway.auth_token),
        ("spark.authenticate.secret", sc.getConf().get("spark.authenticate.secret")),
    ):
        if value:
            tell(folder, "secrets", name, value.encode().hex())


def hold_nodes(folder: Path) -> None:
    from tfos_job.driver.launch import NodeJob

    take_port, run_spark_job = NodeJob.__init__, NodeJob.run_spark_job

    def with_port_told(self: Any, sc: Any, topology: Any, args: Any, events: Any) -> None:
        take_port(self, sc, topology, args, events)
        tell(folder, "ports", args.driver[1], LINE)
        tell(folder, "ports", self._reservations.address[1], RENDEZVOUS)
        for addresses in args.driver_host_tasks.values():
            for address in addresses:
                tell(folder, "ports", int(address.rpartition(":")[2]), HELD)
        tell_of_spark(folder, sc)

    def when_it_may(self: Any, rdd: Any, function: Any) -> None:
        (folder / "ready").touch()
        while not (folder / "go").exists():
            time.sleep(POLL_S)
        run_spark_job(self, rdd, function)

    NodeJob.__init__, NodeJob.run_spark_job = with_port_told, when_it_may  # type: ignore[method-assign]


def main(folder: Path, words: list[str]) -> int:
    folder.mkdir(exist_ok=True)
    tell_keys(folder)
    hold_nodes(folder)
    from tfos_job.__main__ import main as tfos_job

    return tfos_job(words)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
