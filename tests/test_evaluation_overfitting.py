"""The figures of a search: right by the formulas, honest under noise, silent where there is too little."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kurtosis, norm, skew

from evaluation.overfitting import (
    BLOCKS,
    backtest_overfitting,
    deflated_sharpe,
    effective_trials,
    probabilistic_sharpe,
    spa_p_value,
)
from evaluation.resampling import LEAST_DAYS
from market.errors import DataError


def noise(trials: int, seed: int, days: int = 120, a_day: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Trials without skill whose signals share their day's luck."""
    random = np.random.default_rng(seed)
    of_day = np.repeat(np.arange(days), a_day)
    shock = random.normal(size=(days, trials))
    return shock[of_day] + random.normal(size=(len(of_day), trials)), of_day


def test_trials_without_skill_seldom_pass_spa() -> None:
    passed = sum((spa_p_value(*noise(10, seed), seed, 200) or 0.0) < 0.05 for seed in range(100))
    assert passed <= 12, "5 are due; the noise of the count is 2.2"


def test_one_trial_with_skill_among_many_without_is_found() -> None:
    d, days = noise(20, 0)
    d[:, 7] += 0.6
    assert spa_p_value(d, days, 0, 500) < 0.05
    assert spa_p_value(np.delete(d, 7, axis=1), days, 0, 500) > 0.05


def test_a_wild_trial_does_not_hide_a_small_and_steady_gain() -> None:
    d, days = noise(5, 1)
    steady = 0.01 * (d[:, :1] + 0.6)
    assert spa_p_value(np.hstack([100.0 * d[:, 1:], steady]), days, 0, 500) < 0.05


def test_signals_of_one_day_count_once_for_spa() -> None:
    d, days = noise(4, 2, a_day=1)
    d += 0.1
    repeated = np.repeat(d, 10, axis=0)
    assert spa_p_value(repeated, np.repeat(days, 10), 3, 200) == spa_p_value(d, days, 3, 200)


def test_no_p_value_is_zero() -> None:
    d, days = noise(3, 0)
    assert spa_p_value(d + 100.0, days, 0, 200) == pytest.approx(1 / 201)


def test_spa_repeats_itself_by_seed() -> None:
    d, days = noise(4, 2)
    first, again, other = (spa_p_value(d, days, seed, 200) for seed in (1, 1, 2))
    assert first == again != other


def by_hand(d: np.ndarray) -> float:
    """CSCV written out for one signal a day and blocks of equal length."""
    blocks = np.split(d, BLOCKS)
    lost = []
    for chosen in combinations(range(BLOCKS), BLOCKS // 2):
        inside = np.mean([blocks[i] for i in chosen], axis=(0, 1))
        outside = np.mean([blocks[i] for i in set(range(BLOCKS)) - set(chosen)], axis=(0, 1))
        lost.append(outside[np.argmax(inside)] <= 0.0)
    return float(np.mean(lost))


def test_overfitting_is_counted_as_written_out() -> None:
    d, days = noise(4, 5, days=8 * BLOCKS, a_day=1)
    assert backtest_overfitting(d + 0.05, days) == pytest.approx(by_hand(d + 0.05))


def test_busy_days_weigh_by_their_signals() -> None:
    """A trial good in one block of 5,000 signals outweighs one good in fifteen blocks of 5, in choice and in
    judgement alike: whichever half has the busy block, the trial chosen fails in the other.
    """
    days = np.repeat(np.arange(5 * BLOCKS), np.where(np.arange(5 * BLOCKS) < 5, 1_000, 1))
    d = np.where(days < 5, 0.1, -0.1)[:, None] * np.array([1.0, -1.0])
    assert backtest_overfitting(d, days) == 1.0


def test_noise_is_overfitted_half_the_time_and_equal_skill_hardly_ever() -> None:
    found = [backtest_overfitting(*noise(20, seed)) for seed in range(20)]
    assert 0.35 < np.mean(found) < 0.65
    d, days = noise(20, 0)
    assert backtest_overfitting(0.5 * d + 0.5, days) < 0.05


def test_probabilistic_sharpe_is_the_formula_written_out() -> None:
    d, days = noise(1, 3)
    totals = np.bincount(days, weights=d[:, 0] + 0.1)
    ratio = totals.mean() / totals.std(ddof=1)
    error = 1.0 - skew(totals) * ratio + (kurtosis(totals, fisher=False) - 1.0) / 4.0 * ratio**2
    for benchmark in (0.0, 0.1):
        expected = norm.cdf((ratio - benchmark) * np.sqrt(len(totals) - 1) / np.sqrt(error))
        found = probabilistic_sharpe(d[:, 0] + 0.1, days, benchmark)
        assert found == pytest.approx(expected, abs=0.005), "skfolio counts skew without bias"


def test_every_trial_tried_deflates_the_sharpe_ratio() -> None:
    d, days = noise(10, 4)
    best = int(np.argmax(d.mean(axis=0)))
    single = deflated_sharpe(d[:, [best]], days, 0, 1)
    assert single == probabilistic_sharpe(d[:, best], days)
    found = [single, *(deflated_sharpe(d, days, best, tried) for tried in (10, 100, 1_000))]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4
    assert found[1] < 0.95


def test_copies_of_one_trial_are_one_and_strangers_are_many() -> None:
    d, days = noise(10, 6)
    assert effective_trials(np.repeat(d[:, :1], 10, axis=1), days, 10) == pytest.approx(1.0)
    assert effective_trials(d, days, 10) == pytest.approx(10.0, abs=1.0)
    assert effective_trials(d, days, 40) == pytest.approx(40.0, abs=4.0), "those without a network count"


def test_too_few_days_give_no_figure_at_all() -> None:
    d, days = noise(5, 0, days=LEAST_DAYS - 1, a_day=50)
    assert spa_p_value(d, days, 0) is None
    assert probabilistic_sharpe(d[:, 0], days) is None
    assert deflated_sharpe(d, days, 0, 5) is None
    assert effective_trials(d, days, 5) is None
    assert backtest_overfitting(*noise(5, 0, days=5 * BLOCKS - 1)) is None
    assert backtest_overfitting(*noise(5, 0, days=5 * BLOCKS)) is not None


def test_a_single_trial_cannot_be_overfitted_by_choice() -> None:
    d, days = noise(1, 0)
    assert backtest_overfitting(d, days) is None
    assert effective_trials(d, days, 1) is None


def test_trials_that_never_differ_from_the_reference_prove_nothing() -> None:
    days = np.arange(100)
    assert spa_p_value(np.zeros((100, 3)), days, 0) is None
    assert probabilistic_sharpe(np.zeros(100), days) is None
    assert deflated_sharpe(np.zeros((100, 3)), days, 0, 3) is None
    assert backtest_overfitting(np.zeros((100, 3)), days) == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_trial_that_holds_no_number_is_refused_by_its_column(bad: float) -> None:
    d, days = noise(3, 0)
    d[5, 2] = bad
    with pytest.raises(DataError, match="no number in trial 2"):
        spa_p_value(d, days, 0)
    with pytest.raises(DataError, match="no number in trial 2"):
        backtest_overfitting(d, days)


def test_days_of_other_signals_are_refused() -> None:
    d, days = noise(3, 0)
    with pytest.raises(DataError, match="a day for each signal"):
        spa_p_value(d, days[:-1], 0)
