"""The day bootstrap: it covers what it says, keeps days together, and says nothing of too few."""

import numpy as np
import pytest

from evaluation.resampling import LEAST_DAYS, drawdown_p95, interval, resampled_days


def width(d: np.ndarray, days: np.ndarray) -> float:
    low, high = interval(d, days, 500, 0)
    assert low is not None
    assert high is not None
    return high - low


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        days = np.repeat(np.arange(120), random.integers(1, 4, size=120))
        shock = random.normal(size=120)
        d = shock[days] + random.normal(size=len(days))
        low, high = interval(d, days, 200, seed)
        assert low is not None
        assert high is not None
        covered += low <= 0.0 <= high
    assert 0.88 <= covered / 200 <= 0.98


def test_signals_of_one_day_are_not_taken_for_independent() -> None:
    shock = np.random.default_rng(0).normal(size=100)
    together = width(np.repeat(shock, 10), np.repeat(np.arange(100), 10))
    assert together == pytest.approx(2 * 1.96 * shock.std() / 10, rel=0.2)
    assert together > 2.0 * width(
        np.random.default_rng(1).permutation(np.repeat(shock, 10)), np.arange(1_000)
    )


def test_runs_of_good_and_bad_days_widen_the_interval() -> None:
    random = np.random.default_rng(1)
    slow = np.zeros(400)
    for i in range(1, 400):
        slow[i] = 0.9 * slow[i - 1] + random.normal()
    assert width(slow, np.arange(400)) > 1.8 * width(random.permutation(slow), np.arange(400))


def test_nothing_but_zeros_gives_an_interval_of_zero() -> None:
    assert interval(np.zeros(60), np.arange(60), 200, 0) == (0.0, 0.0)


def test_fewer_than_twenty_days_give_no_interval() -> None:
    days = np.repeat(np.arange(LEAST_DAYS - 1), 5)
    d = np.random.default_rng(0).normal(size=len(days))
    assert interval(d, days, 200, 0) == (None, None)
    assert drawdown_p95(d, days, 0.01, 200, 0) is None
    assert interval(d, np.arange(len(d)), 200, 0) != (None, None)


def test_a_seed_gives_the_same_days_and_another_seed_others() -> None:
    totals = np.random.default_rng(0).normal(size=50)
    one, two, other = (resampled_days(totals, 100, seed) for seed in (3, 3, 4))
    assert one is not None
    assert one.shape == (100, 50)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_resampled_drawdown_of_a_steady_loser_is_its_whole_loss() -> None:
    assert drawdown_p95(np.full(100, -1.0), np.arange(100), 0.01, 100, 0) == pytest.approx(1.0 - 0.99**100)


def test_resampled_drawdown_of_a_steady_winner_is_nothing() -> None:
    assert drawdown_p95(np.full(100, 1.0), np.arange(100), 0.01, 100, 0) == pytest.approx(0.0, abs=1e-12)


def test_resampled_drawdown_is_deeper_than_the_median_history() -> None:
    r = np.random.default_rng(2).choice([-1.0, 1.2], size=300)
    p95 = drawdown_p95(r, np.arange(300), 0.01, 400, 0)
    assert p95 is not None
    random = np.random.default_rng(3)
    growth = np.log1p(0.01 * random.choice(r, size=(400, 300)))
    curves = np.cumsum(growth, axis=1)
    depths = 1.0 - np.exp(np.min(curves - np.maximum.accumulate(np.maximum(curves, 0.0), axis=1), axis=1))
    assert p95 == pytest.approx(np.quantile(depths, 0.95), rel=0.15)
