"""Synthetic bars look like a market: honest highs and lows, regimes, clustered volatility."""

import numpy as np
import pytest

from market.errors import ConfigError
from market.synthetic import REGIMES, regimes

BARS = regimes(60_000, seed=0)
RETURNS = np.diff(np.log(BARS.close))


def autocorrelation(values: np.ndarray, lag: int) -> float:
    return float(np.corrcoef(values[:-lag], values[lag:])[0, 1])


def test_the_same_seed_gives_the_same_bars_and_another_seed_others():
    assert regimes(1_000, seed=5).digest() == regimes(1_000, seed=5).digest()
    assert regimes(1_000, seed=5).digest() != regimes(1_000, seed=6).digest()


def test_the_global_generator_is_neither_read_nor_moved():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    digest = regimes(1_000, seed=5).digest()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(99)  # noqa: NPY002
    assert regimes(1_000, seed=5).digest() == digest


def test_bars_follow_one_another_without_a_step_at_chunk_borders(monkeypatch):
    whole = regimes(1_000, seed=5)
    monkeypatch.setattr("market.synthetic._CHUNK", 64)
    np.testing.assert_allclose(regimes(1_000, seed=5).close, whole.close, rtol=1e-12)


def test_hours_are_evenly_spaced_from_the_year_2000():
    assert BARS.time[0] == np.datetime64("2000-01-01", "ns").astype(np.int64)
    assert set(np.diff(BARS.time)) == {3_600_000_000_000}
    assert set(np.diff(regimes(10, seed=0, minutes=5).time)) == {300_000_000_000}


def test_opens_lie_near_the_close_before_but_not_on_it():
    gap = np.abs(np.log(BARS.open[1:] / BARS.close[:-1]))
    assert np.count_nonzero(gap) > 0.999 * len(gap)
    assert np.median(gap) < 0.3 * np.median(np.abs(RETURNS))


def test_highs_and_lows_are_those_of_a_path():
    # The range of a Brownian path is on average twice the distance it covers; 15 steps show most of it.
    span = np.log(BARS.high / BARS.low)
    body = np.abs(np.log(BARS.close / BARS.open))
    assert 1.6 < span.mean() / body.mean() < 2.1
    # Both ends of a bar are inside the path: neither shadow is always there nor never.
    upper = np.mean(BARS.high == np.maximum(BARS.open, BARS.close))
    assert 0.15 < upper < 0.5


def test_returns_have_fat_tails_and_clustered_volatility_but_no_memory_of_sign():
    standard = (RETURNS - RETURNS.mean()) / RETURNS.std()
    assert np.mean(standard**4) > 5.0
    assert autocorrelation(np.abs(RETURNS), 1) > 0.25
    assert autocorrelation(np.abs(RETURNS), 50) > 0.05
    assert abs(autocorrelation(RETURNS, 1)) < 0.05
    shuffled = np.random.default_rng(0).permutation(RETURNS)
    assert abs(autocorrelation(np.abs(shuffled), 1)) < 0.03


def test_regimes_and_clusters_each_make_volatility_persist(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("market.synthetic.RENEWAL", ())
        by_regimes = np.diff(np.log(regimes(60_000, seed=0).close))
    equal = tuple(regime._replace(volatility=1.0) for regime in REGIMES)
    monkeypatch.setattr("market.synthetic.REGIMES", equal)
    by_clusters = np.diff(np.log(regimes(60_000, seed=0).close))
    assert autocorrelation(np.abs(by_regimes), 1) > 0.15
    assert autocorrelation(np.abs(by_clusters), 1) > 0.1


def test_trends_are_stronger_than_in_a_random_walk():
    def efficiency(returns: np.ndarray) -> float:
        blocks = returns[: len(returns) // 50 * 50].reshape(-1, 50)
        return float(np.mean(np.abs(blocks.sum(axis=1)) / np.abs(blocks).sum(axis=1)))

    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(RETURNS))
    assert efficiency(RETURNS) > 1.05 * efficiency(RETURNS * signs)


def test_volume_is_there_and_rises_with_volatility():
    assert (BARS.volume > 0).all()
    assert np.corrcoef(np.log(BARS.volume[1:]), np.log(np.abs(RETURNS) + 1e-9))[0, 1] > 0.2


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"bars": 0}, "bars"), ({"bars": -1}, "bars"), ({"bars": 10**9}, "bars"), ({"seed": -1}, "seed"),
        ({"minutes": 0}, "minutes"), ({"minutes": 10_081}, "minutes"), ({"volatility": 0.0}, "volatility"),
        ({"volatility": float("nan")}, "volatility"), ({"volatility": 0.2}, "volatility"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_named(options, name):
    with pytest.raises(ConfigError, match=f"synthetic {name}: got"):
        regimes(**({"bars": 10, "seed": 0} | options))


def test_the_last_instant_that_nanoseconds_hold_is_not_passed():
    with pytest.raises(ConfigError) as caught:
        regimes(10**9, seed=0, minutes=10_080)
    most = int(caught.value.mend.rpartition(" ")[2])
    assert regimes(most, seed=0, minutes=10_080).time[-1] > np.datetime64("2262-01-01", "ns").astype(np.int64)
