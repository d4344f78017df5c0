from __future__ import annotations

import pytest

from tfos_job.training.bottleneck import StepProfile, StepProfiler
from tfos_job.training.engine import StepBlock


def profile(input_wait_s: float, compute_s: float | None, update_s: float = 0.0) -> StepProfile:
    return StepProfile(steps=10, step_s=1.0, input_wait_s=input_wait_s, update_s=update_s, compute_s=compute_s)


@pytest.mark.parametrize(
    ("input_wait_s", "compute_s", "by", "shares"),
    [
        (0.6, 0.3, "input", {"input": 0.6, "network": 0.1, "compute": 0.3}),
        (0.1, 0.3, "network", {"input": 0.1, "network": 0.6, "compute": 0.3}),
        (0.0, 0.9, "compute", {"input": 0.0, "network": 0.1, "compute": 0.9}),
        (0.2, 1.3, "compute", {"input": 0.2, "network": 0.0, "compute": 0.8}),
        (1.2, 0.5, "input", {"input": 1.0, "network": 0.0, "compute": 0.0}),
    ],
)
def test_the_largest_share_bounds_the_step(
    input_wait_s: float, compute_s: float, by: str, shares: dict[str, float]
) -> None:
    found = profile(input_wait_s, compute_s)
    assert found.by == by
    assert found.shares == pytest.approx(shares)
    document = found.to_json()
    assert document["by"] == by
    assert document["network_s"] == pytest.approx(shares["network"])


@pytest.mark.parametrize(
    ("input_wait_s", "update_s", "by"), [(0.6, 0.1, "input"), (0.1, 0.6, "network"), (0.4, 0.4, None)]
)
def test_without_a_measured_compute_only_more_than_half_decides(
    input_wait_s: float, update_s: float, by: str | None
) -> None:
    found = profile(input_wait_s, None, update_s)
    assert (found.by, found.shares) == (by, None)
    assert found.to_json()["compute_s"] is None


def block(steps: int, seconds: float, input_wait_s: float) -> StepBlock:
    return StepBlock(steps, steps * 8, 1.0, 0.5, seconds, input_wait_s, 0.1 * steps, seconds, {})


def test_the_first_block_counts_only_while_it_is_alone() -> None:
    profiler = StepProfiler(num_workers=2)
    assert profiler.profile is None
    profiler.add(block(2, 30.0, 20.0))
    assert profiler.profile == StepProfile(steps=2, step_s=30.0, input_wait_s=10.0, update_s=0.1, compute_s=None)
    profiler.add(block(8, 2.0, 0.8))
    profiler.add(block(12, 3.0, 1.2))
    profiler.compute_s = 0.3
    # Two workers have taken 20 steps in 5 s: each had half a second for one of its own.
    assert profiler.profile == StepProfile(
        steps=20, step_s=pytest.approx(0.5), input_wait_s=pytest.approx(0.1), update_s=pytest.approx(0.1), compute_s=0.3
    )
