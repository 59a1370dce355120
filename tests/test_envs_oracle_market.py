"""The oracle market is the one it claims to be, and its optimum is one."""

from dataclasses import fields

import numpy as np
import pytest

from envs.guardrails import LARGEST_SIZE, SIZES
from envs.observation import OBSERVATION_FIELDS
from envs.oracle_market import best_tiers, limits, market, ratio, regimes, session
from envs.rewards import utility
from envs.signal_table import SignalTable
from envs.sizing_env import SizingVectorEnv
from market.errors import ConfigError


@pytest.fixture(scope="module")
def table() -> SignalTable:
    return market("L1", 20_000, edge=1.0, seed=0)


def test_realistic_edge_gives_the_stated_moments(table: SignalTable) -> None:
    net = table.gross_r - table.cost_r
    expected = np.sum(table.probability * (table.outcome_r - table.cost_r[:, None]), axis=1)
    assert expected.mean() == pytest.approx(0.095, abs=0.005)
    assert np.mean(net > 0) == pytest.approx(0.40, abs=0.01)
    assert net.std() == pytest.approx(1.47, abs=0.02)


def test_strong_edge_gives_the_stated_mean() -> None:
    strong = market("L1", 20_000, edge=2.0, seed=0)
    expected = np.sum(strong.probability * (strong.outcome_r - strong.cost_r[:, None]), axis=1)
    assert expected.mean() == pytest.approx(0.26, abs=0.01)


@pytest.mark.parametrize(("tier", "reference"), [(0, 0.0), (2, 0.16), (3, -0.13)])
def test_fixed_sizes_reach_their_known_share_of_the_optimum(
    table: SignalTable, tier: int, reference: float
) -> None:
    assert ratio(table, np.full(len(table), tier)) == pytest.approx(reference, abs=0.05)


def test_outcomes_happen_as_often_as_their_probability_says(table: SignalTable) -> None:
    won = table.gross_r > 0
    for low in np.arange(0.2, 0.7, 0.1):
        rows = (table.probability[:, 1] >= low) & (table.probability[:, 1] < low + 0.1)
        error = 4.0 * np.sqrt(0.25 / rows.sum())
        assert won[rows].mean() == pytest.approx(table.probability[rows, 1].mean(), abs=error)


def test_expected_utility_is_the_closed_form(table: SignalTable) -> None:
    win, rr, cost = table.probability[:, 1], table.outcome_r[:, 1], table.cost_r
    for tier, size in enumerate(SIZES):
        by_hand = win * utility(size, rr - cost, table.k, table.base_risk)
        by_hand += (1 - win) * utility(size, -1 - cost, table.k, table.base_risk)
        np.testing.assert_allclose(table.expected[:, tier], by_hand, rtol=1e-12, atol=1e-15)


def test_nothing_beats_the_best_tiers(table: SignalTable) -> None:
    best = best_tiers(table)
    assert ratio(table, best) == 1.0
    random = np.random.default_rng(0)
    assert ratio(table, random.integers(0, 6, len(table))) == pytest.approx(-0.19, abs=0.04)
    assert ratio(table, np.where(random.random(len(table)) < 0.01, 0, best)) < 1.0


def test_every_tier_is_best_for_some_signals(table: SignalTable) -> None:
    assert np.bincount(best_tiers(table), minlength=6).min() > 0.04 * len(table)


def test_no_linear_policy_of_momentum_works_in_every_regime(table: SignalTable) -> None:
    volatility, momentum = table.market[:, 1], table.market[:, 2]
    edge = table.probability[:, 1] * (1 + table.outcome_r[:, 1])
    calm = np.corrcoef(momentum[volatility < 1 / 3], edge[volatility < 1 / 3])[0, 1]
    turbulent = np.corrcoef(momentum[volatility > 2 / 3], edge[volatility > 2 / 3])[0, 1]
    assert calm > 0.3
    assert turbulent < -0.3


def test_observation_holds_the_raw_confidence_and_not_the_answer(table: SignalTable) -> None:
    observed = table.market[:, OBSERVATION_FIELDS.index("signal_confidence")]
    assert abs(np.corrcoef(observed, table.probability[:, 1])[0, 1]) < 0.7
    assert observed.min() < 0.01
    assert observed.max() > 0.99


def test_regimes_stay_nine_times_in_ten_and_move_both_ways() -> None:
    chain = regimes(50_000, np.random.default_rng(0))
    moved = np.diff(chain) % 3
    assert np.mean(moved == 0) == pytest.approx(0.9, abs=0.01)
    assert np.mean(moved == 1) == pytest.approx(0.05, abs=0.01)
    assert set(chain) == {0, 1, 2}


def test_limits_of_the_myopic_task_never_bind() -> None:
    table = market("L1", 3_000, edge=1.0, seed=1)
    env = SizingVectorEnv(table, limits("L1"), 32, session("L1"))
    env.reset(seed=0)
    for _ in range(100):
        assert env.action_masks().all()
        assert (env.episodes.cap == LARGEST_SIZE).all()
        env.step(np.full(32, 5))


def test_same_seed_gives_the_same_stream_and_another_seed_another() -> None:
    first, again, other = (market("L1", 50, edge=1.0, seed=seed) for seed in (3, 3, 4))
    for field in fields(SignalTable):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    assert not np.array_equal(first.market, other.market)


def test_rows_taken_keep_their_own_outcomes(table: SignalTable) -> None:
    rows = np.array([5, 3, 100])
    taken = table.take(rows)
    np.testing.assert_array_equal(taken.outcome_r, table.outcome_r[rows])
    assert ratio(taken, best_tiers(table)[rows]) == 1.0


@pytest.mark.parametrize(
    ("task", "signals", "edge", "field"),
    [("L9", 10, 1.0, "task"), ("L1", 0, 1.0, "signals"), ("L1", 10, float("nan"), "edge")],
)
def test_bad_request_is_refused_by_name(task: str, signals: int, edge: float, field: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        market(task, signals, edge, seed=0)  # type: ignore[arg-type]
    assert refusal.value.field == field
