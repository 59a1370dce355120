"""The interval holds at every moment at once, narrows, and finds what is there."""

import numpy as np
import pytest

from evaluation.confidence_sequence import sequence


def test_whoever_looks_after_every_observation_is_misled_no_more_often_than_said() -> None:
    random = np.random.default_rng(0)
    runs, missed = 200, 0
    for _ in range(runs):
        x = np.clip(random.standard_t(3, size=300) * 0.5 + 0.2, -5.0, 5.0)
        low, high = sequence(x, -5.0, 5.0)  # the intersection over all moments: one miss at any of them shows
        missed += not low <= 0.2 <= high
    # 5 % are allowed; 20 of 200 would be by chance in fewer than one run of this test in 500.
    assert missed < 20


def test_the_mean_may_change_nothing_and_bounds_are_kept() -> None:
    assert sequence(np.array([]), -5.0, 5.0) == (-5.0, 5.0)
    low, high = sequence(np.full(400, 0.3), 0.0, 1.0)
    assert 0.28 < low < 0.3 < high < 0.32
    with pytest.raises(ValueError, match="within"):
        sequence(np.array([1.1]), 0.0, 1.0)


def test_it_only_narrows_and_a_difference_is_found() -> None:
    x = np.random.default_rng(1).normal(0.15, 0.5, size=1_000).clip(-5.0, 5.0)
    before = (-5.0, 5.0)
    for count in (10, 50, 51, 64, 65, 200, 1_000):
        now = sequence(x[:count], -5.0, 5.0)
        assert now[0] >= before[0]
        assert now[1] <= before[1]
        before = now
    assert 0.0 < before[0] < 0.15 < before[1] < 0.3


def test_it_is_as_wide_one_way_as_the_other() -> None:
    x = np.random.default_rng(2).normal(0.1, 0.5, size=200).clip(-5.0, 5.0)
    low, high = sequence(x, -5.0, 5.0)
    assert np.allclose(sequence(-x, -5.0, 5.0), (-high, -low), atol=0.011)


@pytest.mark.parametrize("extreme", [0.0, 1.0])
def test_extremes_are_no_trouble(extreme: float) -> None:
    low, high = sequence(np.full(200, extreme), 0.0, 1.0)
    assert (low == 0.0) == (extreme == 0.0)
    assert (high == 1.0) == (extreme == 1.0)
    assert high - low < 0.1
