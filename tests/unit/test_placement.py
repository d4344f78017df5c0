"""Places of variables on parameter servers: decided without TensorFlow, and a network whose kernels are in parts."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Mapping

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.plan import PLAN
from tfos_job.commands import training_memory
from tfos_job.commands.command import Work
from tfos_job.commands.container_memory import Network
from tfos_job.config import NETWORKS, TrainConfig
from tfos_job.config.defaults import BFLOAT16, FLOAT32, GREEDY, PARTITIONED, PS_PLACEMENTS, ROUND_ROBIN, WIRE_BYTES
from tfos_job.networks import registry
from tfos_job.networks.dense import Dense, kernels_in_parts
from tfos_job.networks.parts import Parts, divided, joined
from tfos_job.networks.variables import all_variables, assign_all
from tfos_job.protocol.topology import Topology
from tfos_job.run.network_variables import known_variables
from tfos_job.run.placement import PlacedVariable, all_reduce_bytes, part_path, place, wire, wire_text
from tfos_job.run.specs import ModelSpec
from tfos_job.training.finetuning import train_only
from tfos_job.training.optimizer import FusedAdam, build_optimizer
from tfos_job.training.placed_network import placed_variables
from tfos_job.training.step import train_step

FULL = [
    ModelSpec(model_name=name, num_classes=3755, image_size=64, num_channels=1, keep_prob=0.8)
    for name in ("chinese_rec", "hanzi_net")
]


def variables(spec: ModelSpec) -> list[PlacedVariable]:
    found = known_variables(spec, (), FLOAT32)
    assert found is not None
    return found


# --- the places -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_ps_tasks", [2, 3, 8])
@pytest.mark.parametrize("spec", FULL, ids=lambda spec: spec.model_name)
def test_partitioned_is_even(spec: ModelSpec, num_ps_tasks: int) -> None:
    found = place(variables(spec), num_ps_tasks, PARTITIONED)
    mean = sum(found.step_bytes) / num_ps_tasks
    if spec.model_name == "chinese_rec" or num_ps_tasks < 8:
        assert max(found.step_bytes) < 1.01 * mean
        assert min(found.step_bytes) > 0.99 * mean
    else:  # more than an eighth is in a convolution, which is not divided
        assert max(found.step_bytes) == 2 * 4 * 9 * 256 * 256


def test_only_partitioned_divides_the_seeds_network() -> None:
    """Four fifths of its variables are one kernel."""
    shares = {}
    for ps_placement in PS_PLACEMENTS:
        found = place(variables(FULL[0]), 2, ps_placement)
        shares[ps_placement] = max(found.step_bytes) / sum(found.step_bytes)
    assert shares[GREEDY] == pytest.approx(0.80, abs=0.01)
    assert shares[ROUND_ROBIN] > 0.79
    assert shares[PARTITIONED] == pytest.approx(0.5, abs=0.001)
    assert place(variables(FULL[0]), 2, GREEDY).parts == {}


def test_round_robin_keeps_the_networks_order() -> None:
    found = place(variables(FULL[0]), 3, ROUND_ROBIN)
    assert list(found.owners.values()) == [number % 3 for number in range(12)]
    assert list(found.owners)[:2] == ["conv1/kernel", "conv1/bias"]


@pytest.mark.parametrize("ps_placement", PS_PLACEMENTS)
def test_all_bytes_have_one_place(ps_placement: str) -> None:
    generator = random.Random(0)
    for _ in range(200):
        given = [
            PlacedVariable(
                path=f"v{number}",
                shape=(generator.randint(1, 3000), generator.randint(1, 300)),
                is_changed=generator.random() < 0.7,
                is_divisible=generator.random() < 0.5,
            )
            for number in range(generator.randint(1, 9))
        ]
        num_ps_tasks = generator.randint(1, 6)
        found = place(given, num_ps_tasks, ps_placement)
        assert found == place(given, num_ps_tasks, ps_placement)
        loads = [0] * num_ps_tasks
        for variable in given:
            columns = found.parts.get(variable.path)
            if columns is None:
                loads[found.owners[variable.path]] += variable.step_bytes
                continue
            assert sum(columns) == variable.shape[-1]
            assert min(columns) > 0
            assert len(columns) > 1
            assert variable.path not in found.owners
            owners = [found.owners[part_path(variable.path, number)] for number in range(len(columns))]
            assert len(set(owners)) == len(owners)
            for owner, width in zip(owners, columns, strict=True):
                loads[owner] += width * variable.column_bytes
        assert tuple(loads) == found.step_bytes


def test_one_server_has_all_of_it_in_one_piece() -> None:
    for ps_placement in PS_PLACEMENTS:
        found = place(variables(FULL[0]), 1, ps_placement)
        assert found.parts == {}
        assert set(found.owners.values()) == {0}


def test_what_is_not_trained_is_read_and_not_sent_back() -> None:
    trained, frozen = (known_variables(FULL[0], scopes, FLOAT32) for scopes in ((), ("fc",)))
    assert trained is not None
    assert frozen is not None
    bytes_of = {it.path: (it.step_bytes, other.step_bytes) for it, other in zip(trained, frozen, strict=True)}
    assert bytes_of["conv3/kernel"] == (2 * 4 * 9 * 128 * 256, 4 * 9 * 128 * 256)
    assert len(set(bytes_of["fc1/kernel"])) == len(set(bytes_of["dropout1_random/seed_generator_state"])) == 1


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_half_the_bytes_in_bfloat16() -> None:
    """But for states, which travel as they are."""
    found = {}
    for wire_dtype in WIRE_BYTES:
        variables_here = known_variables(FULL[1], (), wire_dtype)
        assert variables_here is not None
        found[wire_dtype] = sum(place(variables_here, 1, PARTITIONED).step_bytes)
    states = 2 * 4 * 2 * sum((32, *(3 * filters for filters in (64, 128, 256)))) + 2 * 16
    assert found["float32"] - states == 2 * (found["bfloat16"] - states)


GREEDILY = {"wire_dtype": FLOAT32, "ps_placement": GREEDY}


def test_the_slowest_link_is_what_a_step_waits_for() -> None:
    def seconds(*step_bytes: int, num_workers: int) -> float:
        found = wire(step_bytes, **GREEDILY, num_ps_tasks=len(step_bytes), num_workers=num_workers, link_gbit=1.0)
        return float(found["expected_step_s"])

    assert seconds(168_000_000, num_workers=1) == pytest.approx(1.344)  # a worker's own link has all of it
    assert seconds(84_000_000, 84_000_000, num_workers=1) == pytest.approx(1.344)
    assert seconds(84_000_000, 84_000_000, num_workers=4) == pytest.approx(2.688)
    assert seconds(134_000_000, 34_000_000, num_workers=4) == pytest.approx(4.288)


@pytest.mark.parametrize(("num_workers", "num_replicas", "share"), [(2, 2, 1.0), (2, 4, 1.5), (4, 4, 1.5), (1, 2, 0)])
def test_on_a_ring_both_directions_are_in_use_at_once(num_workers: int, num_replicas: int, share: float) -> None:
    """Of all gradients, what each worker sends, while it receives as much."""
    step_bytes = all_reduce_bytes(1_000_000, FLOAT32, num_workers, num_replicas)
    assert set(step_bytes) == {int(2 * share * 4_000_000)}
    assert tuple(2 * each for each in all_reduce_bytes(1_000_000, BFLOAT16, num_workers, num_replicas)) == step_bytes
    found = wire(step_bytes, **GREEDILY, num_ps_tasks=0, num_workers=num_workers, link_gbit=1.0)
    assert found["expected_step_s"] == pytest.approx(share * 0.032)
    assert (found["engine"], found["ps_placement"]) == ("all_reduce", None)


def test_the_words_have_each_servers_bytes() -> None:
    step_bytes = place(variables(FULL[0]), 2, GREEDY).step_bytes
    text = wire_text(wire(step_bytes, **GREEDILY, num_ps_tasks=2, num_workers=2, link_gbit=10.0))
    assert text == (
        "168.0 MB a step and worker as float32 (greedy: 134.2 MB, 33.8 MB; the largest has 79.9 %): "
        "at least 215 ms on links of 10 Gbit/s for 2 workers at once"
    )


def test_memory_is_that_of_the_server_with_the_most() -> None:
    def overhead(ps_placement: str) -> int:
        config = TrainConfig(dataset_dir="d", train_dir="t", num_executors=3, num_ps_tasks=2, ps_placement=ps_placement)
        roles = training_memory.roles(config, Work(network=Network(num_classes=100_000)), Topology(2, 1))
        return roles[training_memory.PARAMETER_SERVER].overhead

    assert overhead(GREEDY) > overhead(PARTITIONED)


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        *FULL,
        ModelSpec(model_name="chinese_rec", num_classes=7, image_size=16, num_channels=3, keep_prob=1.0),
        ModelSpec(model_name="hanzi_net", num_classes=7, image_size=20, num_channels=3, keep_prob=1.0),
        ModelSpec(model_name="inception_v3", num_classes=3755, image_size=96, num_channels=1, keep_prob=0.8),
        ModelSpec(model_name="inception_v3", num_classes=7, image_size=75, num_channels=3, keep_prob=1.0),
    ],
    ids=lambda spec: f"{spec.model_name}-{spec.image_size}",
)
def test_the_variables_are_those_that_keras_makes(spec: ModelSpec) -> None:
    some = {"chinese_rec": ("fc2",), "hanzi_net": ("block3", "logits"), "inception_v3": ("mixed10", "logits")}
    for scopes in ((), some[spec.model_name]):
        model = registry.build(**vars(spec), seed=0)
        train_only(model, scopes)
        for wire_dtype in WIRE_BYTES:
            assert known_variables(spec, scopes, wire_dtype) == placed_variables(model, wire_dtype)


def test_of_every_network_but_ones_own_they_are_known_before() -> None:
    for name in NETWORKS:
        assert known_variables(dataclasses.replace(FULL[0], model_name=name), (), FLOAT32)
    assert known_variables(dataclasses.replace(FULL[0], model_name="my:network"), (), FLOAT32) is None


def test_a_layer_of_ones_own_may_have_a_kernel_to_divide() -> None:
    class Head(keras.layers.Layer):
        def build(self, input_shape: tuple[int | None, ...]) -> None:
            self.dense, self.plain = Dense(5, name="dense"), keras.layers.Dense(5, name="plain")
            self.dense.build(input_shape)
            self.plain.build(input_shape)

        def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
            return self.dense(inputs) + self.plain(inputs)

    def model() -> keras.Model:
        images = keras.Input((3,))
        return keras.Model(images, Head(name="head")(images))

    whole = model()
    divisible = [it.path for it in placed_variables(whole, FLOAT32) if it.is_divisible]
    assert len(divisible) == 1
    with kernels_in_parts({divisible[0]: (2, 3)}):
        in_parts = model()
    assert [v.path for v in in_parts.variables if "part" in v.path] == [part_path(divisible[0], at) for at in (0, 1)]
    assert not any(it.is_divisible for it in placed_variables(in_parts, FLOAT32))


def build(parts: Parts) -> tuple[keras.Model, FusedAdam]:
    with kernels_in_parts(parts):
        model = registry.build(**vars(dataclasses.replace(PLAN.model, keep_prob=1.0)), seed=1)
    optimizer = build_optimizer(dataclasses.replace(PLAN.learning_rate, learning_rate=1e-3))
    optimizer.build(model.trainable_variables)
    return model, optimizer


def arrays_of(network: tuple[keras.Model, FusedAdam], parts: Parts) -> dict[str, np.ndarray]:
    return joined({name: variable.numpy() for name, variable in all_variables(*network).items()}, parts)


def step(network: tuple[keras.Model, FusedAdam], seed: int) -> float:
    generator = np.random.default_rng(seed)
    images = tf.constant(generator.random((8, 16, 16, 1), np.float32))
    labels = tf.constant(generator.integers(0, 10, 8))
    done = tf.function(lambda: train_step(*network, images, labels))()
    return float(done.loss)


def differences(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    assert list(one) == list(other)
    assert all(one[name].shape == other[name].shape for name in other)
    return max(float(np.abs(one[name] - other[name]).max()) for name in other)


def test_a_checkpoint_is_the_same_under_one_server_three_and_two() -> None:
    """Written under each, resumed under the next, and at last under one again."""
    small = dataclasses.replace(PLAN.model, keep_prob=1.0)
    layouts = {number: place(variables(small), number, PARTITIONED).parts for number in (1, 2, 3)}
    assert [len(layouts[number].get("fc1/kernel", ())) for number in (1, 2, 3)] == [0, 2, 3]
    before: dict[str, np.ndarray] | None = None
    for seed, (old, new) in enumerate(itertools.pairwise((1, 3, 2, 1))):
        written = build(layouts[old])
        if before is not None:
            assign_all(*written, divided(before, layouts[old]))
        step(written, seed)
        checkpoint = arrays_of(written, layouts[old])
        assert list(checkpoint) == list(arrays_of(build({}), {}))
        resumed = build(layouts[new])
        assign_all(*resumed, divided(checkpoint, layouts[new]))
        assert differences(arrays_of(resumed, layouts[new]), checkpoint) == 0
        # The same step under both: the loss before it, and the optimizer's slots, which are linear in gradients.
        losses = step(written, 9), step(resumed, 9)
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        slots = [
            {name: array for name, array in arrays_of(network, layouts[number]).items() if name.endswith("momentum")}
            for network, number in ((written, old), (resumed, new))
        ]
        assert differences(*slots) < 1e-6
        before = checkpoint


def test_parts_compute_what_the_whole_kernel_does() -> None:
    parts = {"fc1/kernel": (1, 600, 423), "fc2/kernel": (9, 1)}
    whole, in_parts = build({}), build(parts)
    assign_all(*in_parts, divided(arrays_of(whole, {}), parts))
    images = np.random.default_rng(0).random((4, 16, 16, 1), np.float32)
    np.testing.assert_allclose(in_parts[0](images), whole[0](images), rtol=1e-5, atol=1e-6)
    assert [v.path for v in in_parts[0].variables if "fc2" in v.path] == [
        "fc2/kernel_part0",
        "fc2/kernel_part1",
        "fc2/bias",
    ]
