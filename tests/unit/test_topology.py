from __future__ import annotations

import random
from typing import Any

import pytest

from tfos_job.config import TrainConfig
from tfos_job.errors import SettingsError
from tfos_job.protocol.topology import (
    Slots,
    Topology,
    WorkerInput,
    assign_shards,
    check_slots,
    slots_of,
    task_failures_of,
    topology_of,
)


@pytest.mark.parametrize(
    ("master", "slots"),
    [
        ("local", Slots(1, 1)),
        ("local[3]", Slots(1, 3)),
        ("local[*]", Slots(1, 8)),
        ("local[2,4]", Slots(1, 2)),
        ("local-cluster[3,2,1024]", Slots(3, 2)),
        ("local-cluster[3, 2, 1024]", Slots(3, 2)),
        ("yarn", None),
        ("spark://host:7077", None),
    ],
)
def test_slots_of_a_master(master: str, slots: Slots | None) -> None:
    assert slots_of(master, cpu_count=8) == slots


def test_a_task_on_local_threads_fails_as_often_as_the_master_says() -> None:
    masters = ("local", "local[4]", "local[*]", "local[4,1]", "local[*, 3]")
    assert [task_failures_of(master) for master in masters] == [1, 1, 1, 1, 3]


@pytest.mark.parametrize("master", ["local", "local[2]", "local-cluster[2,4,1024]"])
def test_a_node_without_a_slot_is_refused_with_the_number_needed(master: str) -> None:
    with pytest.raises(SettingsError, match="for 3 nodes") as caught:
        check_slots(Topology(1, 2), master)
    assert "3" in caught.value.next_step


@pytest.mark.parametrize("master", ["local[3]", "local-cluster[3,1,1024]", "yarn"])
def test_enough_slots(master: str) -> None:
    check_slots(Topology(1, 2), master)


def test_every_shard_has_one_worker_and_loads_are_even() -> None:
    generator = random.Random(0)
    shards = [(f"part-{i}", generator.randint(80, 120)) for i in range(40)] + [("empty", 0)]
    parts = assign_shards(shards, 4)
    assert sorted(item for part in parts for item in part) == sorted(shards[:-1])
    loads = [sum(records for _, records in part) for part in parts]
    assert max(loads) - min(loads) <= 120
    assert parts == assign_shards(shards, 4)


def test_fewer_shards_than_workers_is_refused() -> None:
    with pytest.raises(SettingsError, match="1 shard files with records cannot be divided among 2"):
        assign_shards([("a", 5), ("b", 0)], 2)


def test_worker_input_is_one_value_a_line() -> None:
    given = WorkerInput(worker=1, seed=7, start_record=64, num_records=100, shards=("/a b", "/c"))
    assert given.to_text().split("\n") == ["1", "7", "64", "100", "/a b", "/c"]


@pytest.mark.parametrize(
    ("flags", "master", "num_spark_executors"),
    [
        ({}, "local[3]", 3),
        ({}, "yarn", 3),
        ({"num_gpus": 1}, "yarn", 2),
        ({"num_gpus": 1}, None, 2),  # spark-submit knows the master
        ({"num_gpus": 1}, "local[3]", 3),
        ({"num_gpus": 1, "ps_place": "executor"}, "yarn", 3),
        ({"ps_place": "driver"}, "local-cluster[2,1,1024]", 2),
    ],
)
def test_a_parameter_server_beside_the_driver_fills_no_executor(
    flags: dict[str, Any], master: str | None, num_spark_executors: int
) -> None:
    config = TrainConfig(dataset_dir="d", train_dir="t", num_executors=3, **flags)
    topology = topology_of(config, master)
    assert topology.num_spark_executors == num_spark_executors
    assert len(topology.nodes) == 3
    assert topology.num_driver_ps_tasks == 3 - num_spark_executors


def test_all_reduce_has_workers_alone() -> None:
    config = TrainConfig(dataset_dir="d", train_dir="t", num_executors=3, num_ps_tasks=0, num_gpus=2)
    topology = topology_of(config, "yarn")
    assert (topology.num_spark_executors, topology.num_driver_ps_tasks, str(topology)) == (3, 0, "3 workers")
    assert [str(task) for task in topology.nodes] == ["worker:0", "worker:1", "worker:2"]
    assert config.images_per_step == 6 * config.batch_size


def test_beside_the_driver_only_the_workers_need_slots() -> None:
    check_slots(Topology(1, 2, ps_on_driver_host=True), "local-cluster[2,1,1024]")
    with pytest.raises(SettingsError, match=r"1 slot for 2 nodes \(0 parameter servers and 2 workers\)"):
        check_slots(Topology(1, 2, ps_on_driver_host=True), "local[1]")
