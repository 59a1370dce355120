"""The second look at the limits agrees with the guardrail, and finds what was made to break it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from envs.guardrails import Limits
from envs.signal_table import SignalTable
from evaluation.backtest import Path, run
from evaluation.breaches import breaches
from policies.baselines import FixedSize, RandomLegal
from tests.synthetic_signals import HOUR, START, table

LOOSE: dict[str, Any] = {
    "max_position": 1.0,
    "max_exposure": 1.0,
    "max_daily_risk": 1.0,
    "max_drawdown": 0.9,
    "max_open_trades": 1024,
}
DAYS = 28.0


@pytest.mark.parametrize(
    "limits",
    [
        Limits(),
        Limits(max_drawdown=0.05),
        Limits(max_exposure=0.02, max_daily_risk=0.03),
        Limits(max_position=0.008, max_open_trades=2),
        Limits(**LOOSE, rule_cap=1.0),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_path_through_the_guardrail_breaks_nothing(limits: Limits, seed: int) -> None:
    stream = table(800, seed=seed)
    for policy in (FixedSize(1.5, "most"), RandomLegal(seed)):
        path = run(policy, stream, limits, DAYS)
        assert path.multiplier.sum() > 0.0
        assert breaches(path, stream, limits, DAYS) == 0


@pytest.mark.parametrize(
    "tight",
    [
        {"rule_cap": 1.0},
        {"max_position": 0.01},
        {"max_exposure": 0.03},
        {"max_daily_risk": 0.02},
        {"max_open_trades": 1},
        {"max_drawdown": 0.06},
    ],
)
def test_a_path_made_under_looser_limits_breaks_the_tight_one(tight: dict[str, Any]) -> None:
    stream = table(800, seed=2)
    path = run(FixedSize(1.5, "most"), stream, Limits(**LOOSE), DAYS)
    assert breaches(path, stream, Limits(**LOOSE), DAYS) == 0
    assert breaches(path, stream, Limits(**(LOOSE | tight)), DAYS) > 0


def one_after_the_other(gross: list[float]) -> tuple[Path, SignalTable]:
    """Trades of 1x, two a day, each settled before the next."""
    n = len(gross)
    at = START + np.arange(n) * 12 * HOUR
    stream = table(
        n, time=at, exit_time=at + HOUR, gross_r=np.array(gross), cost_r=np.zeros(n), impact_r=np.zeros(n)
    )
    return run(FixedSize(1.0, "rule 1x"), stream, Limits(**LOOSE), DAYS), stream


def test_breaches_are_counted_one_by_one() -> None:
    path, stream = one_after_the_other([-1.0] * 8)
    # after i losses 0.99^i is left; the next trade keeps back 1.5 % of it above the floor of 0.95
    at_risk = [i for i in range(8) if 0.99**i * (1.0 - 0.015) < 0.95]
    assert breaches(path, stream, Limits(**(LOOSE | {"max_drawdown": 0.05})), DAYS) == len(at_risk) == 4
    assert breaches(path, stream, Limits(**(LOOSE | {"max_daily_risk": 0.01})), DAYS) == 4
    assert breaches(path, stream, Limits(**(LOOSE | {"max_daily_risk": 0.02})), DAYS) == 0


def test_a_skipped_signal_is_no_breach_and_a_gap_in_the_market_is_none_either() -> None:
    path, stream = one_after_the_other([-30.0, -1.0])
    limits = Limits(**(LOOSE | {"max_drawdown": 0.05}))
    assert breaches(replace(path, multiplier=np.array([1.0, 0.0])), stream, limits, DAYS) == 0
    assert breaches(path, stream, limits, DAYS) == 1


def test_drawdown_counts_from_the_review() -> None:
    path, stream = one_after_the_other([-1.0] * 8)
    limits = Limits(**(LOOSE | {"max_drawdown": 0.05}))
    assert breaches(path, stream, limits, 2.0) == 0
