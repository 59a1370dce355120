"""The model beyond three nodes: by hand where it can be, and held up by what cannot be shared."""

from dataclasses import replace

import pytest

from benchmarks.scaling import BANDWIDTH, BEYOND, COPY, LATENCY, SLOW, Costs

COSTS = Costs(
    batch=1_000,
    updates=10,
    sample_s=2e-6,
    learn_s=8e-6,
    step_bytes=100.0,
    weights_bytes=10_000,
    remote_s=1e-3,
)


def test_iteration_is_the_sum_of_its_parts() -> None:
    assert COSTS.iteration(0) == pytest.approx(2e-3 + 8e-3)
    moved = (100_000 + 4 * 10_000) * (1 / BANDWIDTH + 2 / COPY) + 2 * LATENCY + 1e-3
    assert COSTS.iteration(4) == pytest.approx(2e-3 / 4 + moved + 8e-3)
    reduced = 10 * (2 * LATENCY + 2 * 10_000 * 3 / 4 / BANDWIDTH)
    assert COSTS.iteration(0, learners=4) == pytest.approx(2e-3 + 2e-3 + reduced)
    assert COSTS.iteration(1, sample=50.0) - COSTS.iteration(1) == pytest.approx(49 * 2e-3)


def test_runners_help_no_more_than_sampling_takes() -> None:
    speedups = COSTS.speedups()
    assert list(speedups) == [str(count) for count in BEYOND]
    assert max(speedups.values()) < COSTS.iteration(0) / (COSTS.batch * COSTS.learn_s)
    assert speedups["1"] < 1.0  # one alone only adds its calls
    slow = COSTS.speedups(sample=SLOW)
    assert all(slow[count] > speedups[count] for count in ("2", "8", "64"))
    # Weights are handed to each: at some number more runners are slower.
    heavy = replace(COSTS, weights_bytes=50_000_000).speedups()
    assert heavy["64"] < heavy["2"]


def test_one_learner_is_a_training_alone_and_more_are_held_up_by_their_messages() -> None:
    speedups = COSTS.learner_speedups()
    assert speedups["1"] == 1.0
    assert speedups["2"] < 2.0
    assert speedups["64"] < COSTS.iteration(0) / (COSTS.updates * 2 * LATENCY)
