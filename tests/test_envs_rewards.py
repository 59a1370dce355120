"""Utility and rewards against the formula written out, and the signs that published sizers got wrong."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.guardrails import SIZES, TIERS
from envs.rewards import RUIN, expected_table, net_r, realised_table, utility, win_chance
from market.errors import DataError
from tests.synthetic_signals import OUTCOME_R, table

K, BASE_RISK = 8.0, 0.01
ZERO = np.zeros(1)
TAKEN = [(name, size) for name, size in zip(TIERS, SIZES, strict=True) if size > 0.0]


def test_utility_is_the_formula_written_out() -> None:
    for m in SIZES:
        for r in (-1.5, -1.0, -0.2, 0.0, 0.7, 3.0):
            written_out = math.log(1.0 + K * BASE_RISK * m * r) / (K * BASE_RISK)
            assert utility(m, r, K, BASE_RISK) == pytest.approx(written_out, abs=1e-12)


def test_costs_grow_with_the_unit_and_slippage_with_the_root_of_the_size() -> None:
    assert net_r(1.0, 2.0, 0.1, 0.04) == pytest.approx(1.86)
    assert net_r(0.25, 2.0, 0.1, 0.04) == pytest.approx(1.88)
    assert net_r(0.0, 2.0, 0.1, 0.04) == pytest.approx(1.9)


@pytest.mark.parametrize("gross", [-20.0, -1.0, 0.0, 2.0, 50.0])
def test_skip_pays_nothing_whatever_happens(gross: float) -> None:
    assert realised_table(np.array([gross]), ZERO + 0.05, ZERO + 0.02, K, BASE_RISK)[0, 0] == 0.0


@pytest.mark.parametrize(("tier", "size"), TAKEN)
@pytest.mark.parametrize("gross", [-1.0, -0.1, 0.1, 2.0])
def test_every_taken_size_is_paid_with_the_sign_of_its_outcome(tier: str, size: float, gross: float) -> None:
    paid = realised_table(np.array([gross]), ZERO, ZERO, K, BASE_RISK)[0, TIERS.index(tier)]
    assert np.sign(paid) == np.sign(gross)
    assert size > 0.0


def test_skipping_a_loser_beats_taking_it_and_a_larger_loser_is_worse() -> None:
    paid = realised_table(np.array([-1.0]), ZERO + 0.03, ZERO + 0.01, K, BASE_RISK)[0]
    assert np.all(np.diff(paid) < 0.0)


def test_taking_a_winner_beats_skipping_it_and_a_larger_winner_is_better() -> None:
    paid = realised_table(np.array([1.5]), ZERO + 0.03, ZERO + 0.01, K, BASE_RISK)[0]
    assert np.all(np.diff(paid) > 0.0)


def test_excess_over_the_rule_pays_for_skipping_losers_and_charges_for_skipping_winners() -> None:
    stream = table(200, reward="excess")
    at_1x = stream.gross_r - stream.cost_r - stream.impact_r
    assert np.all(stream.reward[at_1x < 0.0, 0] > 0.0)
    assert np.all(stream.reward[at_1x > 0.0, 0] < 0.0)
    assert np.all(stream.reward[:, 3] == 0.0)


def test_without_risk_aversion_expected_reward_is_size_times_expected_net_profit() -> None:
    probability = np.array([[0.6, 0.1, 0.3], [0.3, 0.2, 0.5]])
    cost, impact = np.array([0.05, 0.02]), np.array([0.0, 0.03])
    paid = expected_table(probability, OUTCOME_R, cost, impact, 1e-9, BASE_RISK)
    for i in range(2):
        mean = sum(p * r for p, r in zip(probability[i], OUTCOME_R, strict=True))
        for s, m in enumerate(SIZES):
            net = m * (mean - cost[i] - impact[i] * math.sqrt(m))
            assert paid[i, s] == pytest.approx(net, abs=1e-8)
    assert np.all(paid[0, 1:] < 0.0)
    assert np.all(paid[1, 1:] > 0.0)


@pytest.mark.parametrize(("chance", "win", "loss"), [(0.55, 1.0, 1.0), (0.4, 2.0, 1.0), (0.45, 1.6, 0.9)])
def test_the_best_size_is_one_kth_of_the_kelly_fraction(chance: float, win: float, loss: float) -> None:
    kelly = chance / loss - (1.0 - chance) / win
    grid = np.linspace(0.0, 5.0, 50_001)
    expected = chance * utility(grid, win, K, BASE_RISK) + (1.0 - chance) * utility(grid, -loss, K, BASE_RISK)
    assert grid[np.argmax(expected)] == pytest.approx(kelly / (K * BASE_RISK), abs=1e-4)


def test_a_loss_past_ruin_counts_as_one_percent_left() -> None:
    ruined = math.log(RUIN) / (K * BASE_RISK)
    edge = (RUIN - 1.0) / (K * BASE_RISK)
    assert utility(1.0, edge, K, BASE_RISK) == pytest.approx(ruined)
    assert utility(1.5, -1e6, K, BASE_RISK) == pytest.approx(ruined)
    assert utility(1.0, edge + 0.1, K, BASE_RISK) > ruined


def test_a_certain_outcome_makes_expected_and_realised_utility_equal() -> None:
    probability = np.array([[0.0, 0.0, 1.0]])
    cost, impact = np.array([0.05]), np.array([0.02])
    expected = expected_table(probability, OUTCOME_R, cost, impact, K, BASE_RISK)
    assert expected == pytest.approx(realised_table(OUTCOME_R[2:], cost, impact, K, BASE_RISK))


def test_outcomes_may_differ_by_row() -> None:
    probability = np.array([[0.5, 0.5], [0.5, 0.5]])
    outcomes = np.array([[-1.0, 1.0], [-1.0, 3.0]])
    both = expected_table(probability, outcomes, np.zeros(2), np.zeros(2), K, BASE_RISK)
    for i in range(2):
        alone = expected_table(probability[i : i + 1], outcomes[i], ZERO, ZERO, K, BASE_RISK)
        assert both[i] == pytest.approx(alone[0])


def test_outcomes_that_are_not_those_of_the_probabilities_are_refused() -> None:
    probability = np.array([[0.5, 0.5]])
    with pytest.raises(DataError, match="give 2 outcomes"):
        expected_table(probability, np.array([-1.0, 0.0, 1.0]), ZERO, ZERO, K, BASE_RISK)
    with pytest.raises(DataError, match="give 2 outcomes"):
        win_chance(probability, np.array([[1.0]]), ZERO)


outcomes = st.floats(-30.0, 30.0)
costs = st.floats(0.0, 2.0)


@settings(max_examples=100)
@given(
    gross=outcomes, cost=costs, impact=costs, more=costs, share=st.floats(0.0, 1.0), k=st.floats(0.1, 40.0)
)
def test_a_higher_fee_never_raises_the_utility_of_any_size(
    gross: float, cost: float, impact: float, more: float, share: float, k: float
) -> None:
    def both(cost: float, impact: float) -> np.ndarray:
        one, two = np.array([cost]), np.array([impact])
        chances = np.array([[1.0 - share, 0.0, share]])
        return np.concatenate(
            [
                realised_table(np.array([gross]), one, two, k, BASE_RISK),
                expected_table(chances, OUTCOME_R, one, two, k, BASE_RISK),
            ]
        )

    before = both(cost, impact)
    assert np.all(both(cost + more, impact) <= before + 1e-9)
    assert np.all(both(cost, impact + more) <= before + 1e-9)


@pytest.mark.parametrize("own", [False, True], ids=["outcomes of all", "outcomes of each"])
def test_many_signals_are_worth_what_each_is_alone(own: bool) -> None:
    random = np.random.default_rng(4)
    chance = random.dirichlet(np.ones(3), size=50)
    outcome_r = OUTCOME_R + (random.normal(0.0, 0.1, size=(50, 3)) if own else 0.0)
    cost, impact = random.uniform(0.0, 2.5, size=(2, 50))
    worth = expected_table(chance, outcome_r, cost, impact, K, BASE_RISK)
    wins = win_chance(chance, outcome_r, cost)
    for i in range(50):
        r = outcome_r[i] if own else outcome_r
        alone = chance[i : i + 1], r, cost[i : i + 1]
        assert np.array_equal(worth[i], expected_table(*alone, impact[i : i + 1], K, BASE_RISK)[0])
        assert wins[i] == win_chance(*alone)[0] == pytest.approx(chance[i][r > cost[i]].sum())
        net = net_r(SIZES[:, None], r, cost[i], impact[i])
        by_hand = (chance[i] * utility(SIZES[:, None], net, K, BASE_RISK)).sum(axis=1)
        np.testing.assert_allclose(worth[i], by_hand, atol=1e-12)
    assert 0.0 < wins.mean() < 1.0
