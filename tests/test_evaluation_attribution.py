"""Sizing skill is found where sizes know something, and not where they only look as if they did."""

import numpy as np
import pytest

from envs.guardrails import SIZES, Limits
from evaluation.attribution import Attribution, attribute, attribution
from evaluation.backtest import run
from evaluation.resampling import LEAST_DAYS
from policies.baselines import FixedSize, PlugIn
from tests.synthetic_signals import table

DAYS = 150
OF_DAY = np.repeat(np.arange(DAYS), 3)
N = len(OF_DAY)
OPEN = Limits(
    max_position=1.0, max_exposure=1.0, max_daily_risk=1.0, max_drawdown=0.999, max_open_trades=1024
)


def of(
    multiplier: np.ndarray, r: np.ndarray, days: np.ndarray = OF_DAY, symbol: np.ndarray | None = None
) -> Attribution:
    zeros = np.zeros(len(r))
    symbols = np.zeros(len(r), dtype=np.int32) if symbol is None else symbol
    return attribution(multiplier, r, zeros, zeros, days, symbol=symbols, replications=200)


def slow(random: np.random.Generator) -> np.ndarray:
    """One number a day that changes slowly, of variance 1."""
    level = random.normal(size=DAYS)
    for i in range(1, DAYS):
        level[i] = 0.8 * level[i - 1] + 0.6 * level[i]
    return level


def test_gain_is_what_sizes_earn_beyond_their_own_mean_on_every_trade() -> None:
    random = np.random.default_rng(0)
    multiplier, gross = random.choice(SIZES, N), random.normal(size=N)
    cost, impact = random.uniform(0, 0.1, N), random.uniform(0, 0.1, N)
    found = attribution(
        multiplier, gross, cost, impact, OF_DAY, symbol=np.zeros(N, dtype=np.int32), replications=50
    )
    mean = multiplier.mean()
    sized = [m * (g - c - i * m**0.5) for m, g, c, i in zip(multiplier, gross, cost, impact, strict=True)]
    flat = [mean * (g - c - i * mean**0.5) for g, c, i in zip(gross, cost, impact, strict=True)]
    assert found.flat_size == mean
    assert found.sized_r == pytest.approx(sum(sized))
    assert found.flat_r == pytest.approx(sum(flat))
    assert found.gained_r == pytest.approx((sum(sized) - sum(flat)) / N)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.gained_r < found.high
    assert (found.signals, found.days) == (N, DAYS)


def test_larger_sizes_on_better_trades_are_skill() -> None:
    random = np.random.default_rng(1)
    r = random.normal(size=N)
    knowing = SIZES[np.clip(np.round(2.5 + r + random.normal(size=N)), 0, 5).astype(int)]
    found = of(knowing, r)
    assert found.gained_r > 0.1
    assert found.low > 0.0
    assert found.p_value == pytest.approx(1 / 201)
    inverted = of(1.5 - knowing, r)
    assert inverted.gained_r == pytest.approx(-found.gained_r)
    assert inverted.p_value == 1.0


def test_smaller_sizes_throughout_are_no_skill_however_much_they_save() -> None:
    losing = np.random.default_rng(2).normal(-0.5, 1.0, N)
    half = of(np.full(N, 0.5), losing)
    assert half.gained_r == pytest.approx(0.0, abs=1e-12)
    assert half.p_value is None


@pytest.mark.parametrize("persistent", [False, True])
def test_sizes_that_know_nothing_seldom_look_skilled(persistent: bool) -> None:
    """Also where both sizes and outcomes have long good and bad times of their own."""
    found = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        if persistent:
            belief, luck = 1.5 * slow(random)[OF_DAY], slow(random)[OF_DAY]
        else:
            belief, luck = random.normal(size=(2, N))
        sizes = SIZES[np.clip(np.round(2.5 + belief), 0, 5).astype(int)]
        p = of(sizes, luck + random.normal(size=N)).p_value
        assert p is not None
        found += p < 0.05
    assert found <= 12, "5 are due, 2.2 the noise of the count; day by day some 19 would be"


def test_liking_one_symbol_is_a_gain_and_no_proven_skill() -> None:
    random = np.random.default_rng(3)
    symbol = random.integers(0, 2, N).astype(np.int32)
    r = random.normal(size=N) + np.where(symbol == 0, 1.0, -1.0)
    liked = np.where(symbol == 0, 1.0, 0.25)
    found = of(liked, r, symbol=symbol)
    assert found.gained_r > 0.3
    assert found.p_value is None
    varied = liked + 0.25 * random.integers(0, 2, N)
    assert of(varied, r, symbol=symbol).p_value > 0.1
    assert of(varied, r).p_value == pytest.approx(1 / 201), "what it would be if symbols were mixed"


def test_few_days_give_no_interval_and_no_p_value() -> None:
    random = np.random.default_rng(4)
    days = np.repeat(np.arange(LEAST_DAYS - 1), 20)
    found = of(random.choice(SIZES, len(days)), random.normal(size=len(days)), days)
    assert (found.low, found.high, found.p_value, found.run_days) == (None, None, None, None)


def test_backtest_of_a_plug_in_that_knows_the_odds_shows_skill_and_a_flat_one_none() -> None:
    stream = table(1_500, seed=5, edge=2.0)
    known = attribute(run(PlugIn(), stream, OPEN, 28.0), stream, replications=200)
    assert known.p_value is not None
    assert known.p_value < 0.05
    assert known.sized_r == pytest.approx(run(PlugIn(), stream, OPEN, 28.0).net_r.sum())
    assert attribute(run(FixedSize(1.0, "rule"), stream, OPEN, 28.0), stream).p_value is None
