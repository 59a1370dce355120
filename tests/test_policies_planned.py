"""The planning plug-in: the plug-in where room costs nothing, and better than it where room is scarce."""

import numpy as np
import pytest

from envs.guardrails import Limits
from envs.signal_table import SignalTable
from evaluation.backtest import run
from policies.baselines import PlugIn
from policies.planned import planned
from tests.synthetic_signals import HOUR, START, table

WIDE = Limits(max_exposure=1.0, max_daily_risk=1.0, max_position=1.0, max_drawdown=0.9, max_open_trades=900)


def crowded(seed: int, signals: int = 1_500) -> SignalTable:
    """Six signals a day, each open for a day: an exposure of 2 % takes two at a time."""
    time = START + np.arange(signals) * 4 * HOUR
    return table(signals, seed=seed, time=time, exit_time=time + 24 * HOUR)


def test_with_room_for_all_it_is_the_plug_in() -> None:
    signals = table(300)
    sizes = [run(policy, signals, WIDE, 28.0).multiplier for policy in (planned(signals, WIDE), PlugIn())]
    assert np.mean(sizes[0] != sizes[1]) < 0.02


@pytest.mark.parametrize(
    "tight",
    [
        {"max_exposure": 0.02, "max_daily_risk": 1.0},
        {"max_exposure": 1.0, "max_daily_risk": 0.02},
    ],
)
def test_where_room_is_scarce_it_expects_more_than_the_plug_in(tight: dict[str, float]) -> None:
    limits = Limits(max_drawdown=0.9, **tight)
    plan, fresh = planned(crowded(0), limits), crowded(1)
    ahead, greedy = (run(policy, fresh, limits, 28.0).expected.mean() for policy in (plan, PlugIn()))
    assert ahead > 1.05 * greedy


def test_room_in_use_is_worth_less_than_room_left() -> None:
    limits = Limits(max_exposure=0.02, max_daily_risk=0.03, max_drawdown=0.9)
    later = planned(crowded(0), limits).later
    assert np.all(np.diff(later, axis=0) <= 1e-9)
    assert np.all(np.diff(later, axis=1) <= 1e-9)
    assert later[0, 0] > later[-1, -1]


@pytest.mark.parametrize("limits", [Limits(max_exposure=0.0), Limits(allow_skip=False), Limits(rule_cap=0.5)])
def test_odd_limits_still_give_a_plan_within_them(limits: Limits) -> None:
    signals = crowded(2, 200)
    path = run(planned(signals, limits), signals, limits, 28.0)
    assert np.all(path.multiplier <= limits.rule_cap)
    assert np.all(path.multiplier * limits.base_risk <= limits.max_exposure)
