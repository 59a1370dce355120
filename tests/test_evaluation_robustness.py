"""Cost stress, late entries, regimes and years, each against figures worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from envs.guardrails import Limits
from evaluation.backtest import run
from evaluation.robustness import COST_FACTORS, TREND, VOLATILITY, cost_stress, groups, late, regimes, years
from policies.baselines import FixedSize, PlugIn
from tests.synthetic_signals import table

SIGNALS = table(400)
RULE = run(FixedSize(1.0, "rule 1x"), SIGNALS, Limits(), 28.0)
PLUG_IN = run(PlugIn(), SIGNALS, Limits(), 28.0)


def test_each_factor_charges_that_many_times_the_costs_of_the_sizes_taken() -> None:
    stress = cost_stress([RULE, PLUG_IN], SIGNALS, "rule 1x")[1]
    m = PLUG_IN.multiplier
    paid = np.sum(m * (SIGNALS.cost_r + SIGNALS.impact_r * np.sqrt(m)))
    gross = np.sum(m * SIGNALS.gross_r)
    assert stress.net_r == pytest.approx([gross - factor * paid for factor in COST_FACTORS])
    assert stress.net_r[1] == pytest.approx(PLUG_IN.net_r.sum())
    assert stress.utility[1] == pytest.approx(PLUG_IN.utility.mean())
    assert stress.ahead[1] == pytest.approx(np.mean(PLUG_IN.utility - RULE.utility))
    assert stress.falls


def test_at_the_break_even_factor_nothing_is_left() -> None:
    stress = cost_stress([PLUG_IN], SIGNALS, PLUG_IN.name)[0]
    assert stress.break_even is not None
    dear = replace(
        SIGNALS, cost_r=stress.break_even * SIGNALS.cost_r, impact_r=stress.break_even * SIGNALS.impact_r
    )
    assert cost_stress([PLUG_IN], dear, PLUG_IN.name)[0].net_r[1] == pytest.approx(0.0, abs=1e-9)


def test_what_loses_without_costs_has_no_break_even_and_a_rebate_is_noticed() -> None:
    losing = replace(SIGNALS, gross_r=-np.abs(SIGNALS.gross_r))
    assert cost_stress([RULE], losing, "rule 1x")[0].break_even is None
    rebate = replace(SIGNALS, cost_r=-SIGNALS.cost_r, impact_r=0 * SIGNALS.impact_r)
    assert not cost_stress([RULE], rebate, "rule 1x")[0].falls


def test_groups_part_the_signals_and_their_weighted_mean_is_the_whole() -> None:
    for labels in (years(SIGNALS), regimes(SIGNALS)):
        found = groups([RULE, PLUG_IN], SIGNALS, labels, PLUG_IN.name, RULE.name, 100)
        assert sum(group.signals for group in found) == len(SIGNALS)
        weighted = sum(group.signals * group.mean_utility["rule 1x"] for group in found) / len(SIGNALS)
        assert weighted == pytest.approx(RULE.utility.mean())
        for group in found:
            assert group.versus is not None
            own = group.mean_utility
            assert group.versus.mean == pytest.approx(own[PLUG_IN.name] - own["rule 1x"])
            assert (group.versus.low is None) == (group.days < 20)


def test_a_subject_is_not_compared_with_itself() -> None:
    found = groups([RULE], SIGNALS, years(SIGNALS), "rule 1x", "rule 1x")
    assert [group.versus for group in found] == [None] * len(found)


def test_regimes_are_told_by_volatility_first_and_trend_second() -> None:
    market = SIGNALS.market.copy()
    market[:4, VOLATILITY] = [0.9, 0.5, 0.5, 0.1]
    market[:4, TREND] = [0.9, 0.99, 0.0, 1.0]
    assert regimes(replace(SIGNALS, market=market))[:4] == ["turbulent", "trending", "calm", "trending"]
    assert set(years(SIGNALS)) <= {str(year) for year in range(2050, 2060)}


def test_a_late_entry_stands_beside_the_prompt_one() -> None:
    worse = run(PlugIn(), replace(SIGNALS, gross_r=SIGNALS.gross_r - 0.2), Limits(), 28.0)
    assert late([RULE, PLUG_IN], [worse]) == {
        PLUG_IN.name: (pytest.approx(PLUG_IN.utility.mean()), pytest.approx(worse.utility.mean()))
    }
