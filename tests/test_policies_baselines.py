"""Every sizer answers alike: N sizes, deterministic, and the closed forms are what they say."""

import numpy as np
import pytest

from envs.guardrails import SIZES, Limits, allowed
from envs.observation import Situation
from envs.rewards import utility
from market.errors import DataError
from policies.baselines import (
    FixedSize,
    FractionalKelly,
    OptimalF,
    PlugIn,
    RandomLegal,
    RandomTier,
    VolatilityTarget,
    baselines,
    best_legal,
    nearest_tier,
)
from policies.decision import Policy, ladder
from tests.synthetic_signals import table


def situation(count: int = 200, seed: int = 0) -> Situation:
    stream, random = table(count, seed), np.random.default_rng(seed)
    cap = random.uniform(0.0, 1.5, count)
    observation = stream.market.copy()
    observation[:, 9] = cap / 1.5
    return Situation(
        observation=observation,
        mask=allowed(cap, Limits()),
        cap=cap,
        probability=stream.probability,
        outcome_r=stream.outcome_r,
        cost_r=stream.cost_r,
        impact_r=stream.impact_r,
        volatility_ratio=stream.volatility_ratio,
        settled_kelly=stream.settled_kelly,
        settled_optimal=stream.settled_optimal,
        k=stream.k,
        base_risk=stream.base_risk,
    )


@pytest.mark.parametrize("number", range(len(baselines())))
def test_every_sizer_answers_finite_sizes_in_the_band_and_the_same_to_the_same(number: int) -> None:
    seen = situation()
    first, again = (baselines(seed=4)[number].size(seen) for _ in range(2))
    assert first.shape == seen.cap.shape
    assert np.all((first >= 0.0) & (first <= 1.5))
    assert np.array_equal(first, again)


def test_their_names_differ() -> None:
    names = [policy.name for policy in baselines()]
    assert len(set(names)) == len(names)


def test_the_plug_in_takes_the_best_of_six_closed_forms() -> None:
    seen = situation(50)
    for i, size in enumerate(PlugIn().size(seen)):
        r = seen.outcome_r - seen.cost_r[i] - seen.impact_r[i] * np.sqrt(SIZES)[:, None]
        value = (seen.probability[i] * utility(SIZES[:, None], r, seen.k, seen.base_risk)).sum(axis=1)
        legal = [k for k in range(6) if SIZES[k] <= seen.cap[i]]
        assert size == SIZES[max(legal, key=lambda k: value[k])]


def test_the_plug_in_skips_a_signal_without_edge_and_bets_on_a_sure_one() -> None:
    seen = situation(2)
    sure = seen._replace(
        probability=np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), mask=np.ones((2, 6), dtype=bool)
    )
    assert PlugIn().size(sure).tolist() == [1.5, 0.0]


def test_random_sizes_are_legal_and_use_every_legal_tier() -> None:
    seen = situation(3000)
    sizes = RandomLegal(1).size(seen)
    assert np.all(sizes <= seen.cap)
    free = seen.cap == seen.cap.max()
    assert set(sizes[seen.cap >= 1.45]) >= {0.0, 0.25, 0.5, 1.0}
    assert free.any()


def test_kelly_trades_the_rule_until_enough_signals_settled() -> None:
    seen = situation(3)._replace(settled_kelly=np.array([np.nan, 0.0, 0.04]))
    assert FractionalKelly().size(seen).tolist() == [1.0, 0.0, 0.5]  # 0.04 / (8 x 0.01) = 0.5


def test_full_and_half_kelly_bet_the_whole_fraction_and_half_of_it() -> None:
    seen = situation(3)._replace(settled_kelly=np.array([np.nan, 0.005, 0.01]))
    assert FractionalKelly(1.0, "full Kelly").size(seen).tolist() == [1.0, 0.5, 1.0]
    assert FractionalKelly(0.5, "half Kelly").size(seen).tolist() == [1.0, 0.25, 0.5]


def test_optimal_f_bets_what_would_have_compounded_most() -> None:
    seen = situation(3)._replace(settled_optimal=np.array([np.nan, 0.0, 0.0125]))
    assert OptimalF().size(seen).tolist() == [1.0, 0.0, 1.25]


def test_random_tiers_are_drawn_by_their_shares_and_not_by_the_signal() -> None:
    shares = (0.5, 0.0, 0.3, 0.0, 0.0, 0.2)
    drawn = RandomTier(shares, 1).size(situation(5_000))
    found = [np.mean(drawn == size) for size in SIZES]
    assert found == pytest.approx(shares, abs=0.02)


def test_the_volatility_target_sizes_down_when_volatility_is_high() -> None:
    seen = situation(3)._replace(volatility_ratio=np.array([0.5, 1.0, 2.0]))
    assert VolatilityTarget().size(seen).tolist() == [1.5, 1.0, 0.5]


def test_ties_go_to_the_smaller_size() -> None:
    assert best_legal(np.zeros((1, 6)), np.ones((1, 6), dtype=bool)).tolist() == [0.0]
    assert nearest_tier(np.array([0.125, 0.75, 3.0, -1.0])).tolist() == [0.0, 0.5, 1.5, 0.0]


def test_five_values_are_no_choice_among_six_tiers() -> None:
    with pytest.raises(DataError, match="give 6 values"):
        best_legal(np.zeros((1, 5)), np.ones((1, 6), dtype=bool))


def test_a_ladder_says_what_blocks_each_rung() -> None:
    legal = allowed(np.array([0.6]), Limits())[0].tolist()
    rungs = ladder(np.arange(6.0).tolist(), legal, "max_exposure")
    assert [rung["blocked_by"] for rung in rungs] == [*3 * [None], *3 * ["max_exposure"]]
    assert [rung["value"] for rung in rungs] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert ladder(None, legal, "max_exposure")[2]["value"] is None
    vetoless = allowed(np.array([0.6]), Limits(allow_skip=False))[0].tolist()
    assert ladder(None, vetoless, "max_exposure")[0]["blocked_by"] == "skip_not_allowed"


def test_fixed_size_is_the_rule() -> None:
    policy: Policy = FixedSize(1.0, "rule 1x")
    assert policy.size(situation(4)).tolist() == [1.0] * 4
