"""A node before its TensorFlow process: what it tells the driver, over a real line."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from tests.unit.waits import PATIENCE_S
from tfos_job.errors import NodeDiedError, ResourceError
from tfos_job.host import gpus, server_port
from tfos_job.nodes import account, node
from tfos_job.nodes.account import NodeFailed
from tfos_job.nodes.node import NodeArgs, NodeContext
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.frames import new_key
from tfos_job.protocol.switchboard import Switchboard
from tfos_job.protocol.topology import WORKER, Task, WorkerInput

HOST = "127.0.0.1"


def test_a_worker_without_its_gpu_tells_the_driver_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gpus.VARIABLE, "")  # the user lets it see none
    key, task = new_key(), Task(WORKER, 0)
    switchboard = Switchboard(HOST, key, attempt=2)
    worker_input = WorkerInput(worker=0, seed=0, start_record=0, num_records=1, shards=("a",))
    args = NodeArgs(
        driver=switchboard.address,
        key=key,
        attempt=2,
        driver_host_tasks={},
        inputs=(worker_input,),
        num_gpus=1,
        local=True,
        start_timeout=60,
    )
    with server_port.hold(HOST) as held:
        port = held.port
        monkeypatch.setattr(node, "context", NodeContext(held, (str(tmp_path),)))
        manager = types.SimpleNamespace(_process=types.SimpleNamespace(pid=0))
        ctx = types.SimpleNamespace(job_name=WORKER, task_index=0, cluster_spec={WORKER: [held.address]}, mgr=manager)
        with pytest.raises(NodeFailed, match="leaves this worker 0 of 1 GPUs"):
            node.main(args, ctx)
    joined, said, lost = (switchboard.events.get(timeout=PATIENCE_S) for _ in range(3))
    switchboard.close()
    assert isinstance(joined, Joined)
    assert (joined.task, joined.hello.port) == (task, port)
    assert isinstance(said, Said)
    assert isinstance(said.message, Failure)
    assert (said.message.kind, said.message.exit_code) == (Kind.RAISED, ResourceError.exit_code)
    assert said.message.cause == f"{gpus.VARIABLE}= leaves this worker 0 of 1 GPUs"
    assert isinstance(lost, Lost)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_of_a_container_that_is_gone_is_its_loss(tmp_path: Path) -> None:
    """YARN has killed it for its memory, and its TensorFlow process was still importing."""
    raised = Failure(Kind.RAISED, "ImportError: cannot import name 'x'", 70, place="p", next_step="n", detail="a log")
    there, gone = str(tmp_path), str(tmp_path / "environment")
    assert account.judged(raised, [there]) == raised
    lost = account.judged(raised, [there, gone])
    assert (lost.kind, lost.exit_code, lost.place, lost.next_step) == (Kind.LOST, NodeDiedError.exit_code, "", "")
    assert lost.cause == f"its container's folder was removed while it worked: {raised.cause}"
    assert lost.detail == "a log"
    killed = Failure(Kind.KILLED, "killed by SIGKILL")
    assert account.judged(killed, [gone]) == killed
