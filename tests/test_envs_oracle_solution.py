"""The dynamic programme is the optimum: enumeration by hand and accounts that follow it say the same."""

from functools import cache

import numpy as np
import pytest

from envs.guardrails import MAX_DAILY_RISK, MAX_DRAWDOWN, RULE_CAP, SIZES, Account, allowed, cap
from envs.oracle_market import SETTINGS, Task, limits, market, regime_of, regimes, session, session_signals
from envs.oracle_score import Walk, walk
from envs.oracle_solution import MOVES, Plan, counted_moves, oracle, solve, typical_signals
from envs.signal_table import SignalTable
from envs.sizing_env import SizingVectorEnv
from policies.baselines import FixedSize, PlugIn, RandomLegal, baselines
from policies.decision import Policy

TASKS: tuple[Task, ...] = ("L1", "L2", "L3")
SIGNALS = 30_000


@cache
def plan(task: Task) -> Plan:
    return oracle(task, edge=1.0)


@cache
def stream(task: Task) -> SignalTable:
    return market(task, SIGNALS, edge=1.0, seed=7)


@cache
def optimum(task: Task) -> Walk:
    return walk(plan(task).size, task, stream(task))


def by_hand(task: Task, signals: SignalTable, left: int, z: int, used: float, drawdown: float) -> float:
    """Backward induction over every signal, legal size and outcome, on the account itself, without a grid."""
    if left == 0:
        return 0.0
    bounds = limits(task)
    legal = allowed(cap(Account(1.0 - drawdown, 1.0, 0.0, used), bounds)[0], bounds)[0]
    total, rows = 0.0, np.flatnonzero(regime_of(signals.volatility_ratio / 2.0) == z)
    for row in rows:
        worths = []
        for tier in np.flatnonzero(legal):
            risk = SIZES[tier] * bounds.base_risk
            worth = float(signals.expected[row, tier])
            for p, r in zip(
                signals.probability[row], signals.outcome_r[row] - signals.cost_r[row], strict=True
            ):
                then = max(0.0, 1.0 - (1.0 - drawdown) * (1.0 + risk * r))
                for following in range(3):
                    worth += (
                        p
                        * MOVES[z, following]
                        * by_hand(task, signals, left - 1, following, round(used + risk, 12), then)
                    )
            worths.append(worth)
        total += max(worths) / len(rows)
    return total


@pytest.mark.parametrize("task", TASKS)
def test_plan_equals_backward_induction_by_hand_on_a_tiny_market(task: Task) -> None:
    signals = typical_signals(task, edge=2.0, fineness=0)  # one signal for each regime
    binding = {"L1": {}, "L2": {"max_daily_risk": 0.02}, "L3": {"max_drawdown": 0.05}}[task]
    original = SETTINGS[task]
    SETTINGS[task] = original._replace(limits=original.limits.model_copy(update=binding))
    try:
        small = solve(task, signals, MOVES, nodes=20_001, horizon=3)
        exact = float(np.mean([by_hand(task, signals, 3, z, 0.0, 0.0) for z in range(3)])) / 3
        generous = solve("L1", signals, MOVES, horizon=3).value
    finally:
        SETTINGS[task] = original
    assert small.value == pytest.approx(exact, rel=1e-9 if task != "L3" else 1e-4)
    assert (small.value < 0.98 * generous) == (task != "L1"), "the limit costs nothing: nothing was tested"


@pytest.mark.parametrize("task", TASKS)
def test_value_of_the_plan_is_what_accounts_that_follow_it_earn(task: Task) -> None:
    earned = optimum(task).expected.reshape(-1, session_signals(task)).mean(axis=1)
    error = earned.std(ddof=1) / np.sqrt(len(earned))
    assert earned.mean() == pytest.approx(plan(task).value, abs=4.0 * error)
    assert error < 0.02 * earned.mean()


@pytest.mark.parametrize(("task", "value"), [("L2", 0.0838), ("L3", 0.1342)])
def test_value_of_the_plan_is_the_stated_one(task: Task, value: float) -> None:
    assert plan(task).value == pytest.approx(value, rel=0.01)


def test_grids_of_different_fineness_agree() -> None:
    coarse, fine = (oracle("L3", 1.0, nodes=nodes, fineness=7).value for nodes in (41, 161))
    assert coarse == pytest.approx(fine, rel=0.01)
    few, many = (oracle("L2", 1.0, fineness=fineness).value for fineness in (8, 12))
    assert few == pytest.approx(many, rel=0.002)


@pytest.mark.parametrize("task", TASKS)
def test_plan_beats_every_other_policy(task: Task) -> None:
    best = optimum(task).expected.mean()
    for policy in baselines():
        reached = walk(policy.size, task, stream(task), snap=policy.snaps).expected.mean()
        if isinstance(policy, PlugIn) and task == "L1":
            assert reached == pytest.approx(best, rel=1e-12)
        else:
            assert reached < 0.9 * best, policy.name


@pytest.mark.parametrize(
    ("task", "policy", "reference"),
    [
        ("L1", FixedSize(0.5, "half"), 0.16),
        ("L1", FixedSize(1.0, "rule 1x"), -0.13),
        ("L1", RandomLegal(), -0.19),
        ("L2", PlugIn(), 0.84),
        ("L2", FixedSize(0.5, "half"), 0.20),
        ("L2", FixedSize(1.0, "rule 1x"), -0.01),
        ("L3", PlugIn(), 0.58),
        ("L3", FixedSize(0.5, "half"), 0.25),  # the best of the fixed sizes
    ],
)
def test_simple_policies_reach_their_known_share_of_the_optimum(
    task: Task, policy: Policy, reference: float
) -> None:
    reached = walk(policy.size, task, stream(task)).expected.mean() / optimum(task).expected.mean()
    assert reached == pytest.approx(reference, abs=0.04)


@pytest.mark.parametrize("task", ["L2", "L3"])
def test_changing_one_choice_in_twenty_of_the_plan_costs(task: Task) -> None:
    random = np.random.default_rng(0)

    def careless(situation):  # type: ignore[no-untyped-def]
        size = plan(task).size(situation)
        return np.where(random.random(len(size)) < 0.05, random.choice(SIZES, len(size)), size)

    assert walk(careless, task, stream(task)).expected.mean() < 0.995 * optimum(task).expected.mean()


@pytest.mark.parametrize(("task", "rule"), [("L1", RULE_CAP), ("L2", MAX_DAILY_RISK), ("L3", MAX_DRAWDOWN)])
def test_only_the_limit_of_the_task_binds_and_it_is_never_exceeded(task: Task, rule: int) -> None:
    env = SizingVectorEnv(stream(task), limits(task), 256, session(task))
    env.reset(seed=0)
    random, bound, used, deepest = np.random.default_rng(1), 0, 0.0, 0.0
    for step in range(3 * session_signals(task)):
        episodes = env.episodes
        held = ~env.action_masks().all(axis=1)
        bound += int(held.sum())
        assert (episodes.cap_rule[held] == rule).all()
        assert np.isin(episodes.cap_rule, (RULE_CAP, rule)).all()
        env.step(np.full(256, 5) if step % 2 else random.integers(0, 6, 256))
        used = max(used, float(episodes.ledger.daily_risk.max()))
        deepest = max(deepest, float((1.0 - episodes.ledger.equity / episodes.ledger.peak).max()))
    assert (bound > 0) == (task != "L1")
    assert used <= limits(task).max_daily_risk + 1e-12
    assert deepest <= limits(task).max_drawdown
    if task == "L2":
        assert used == pytest.approx(0.025), "nobody spent the budget"
    if task == "L3":
        assert deepest > 0.09, "nobody came near the limit"


def test_an_account_at_its_limit_has_nothing_to_plan() -> None:
    assert (plan("L2").later[:, :, 0] == 0.0).all()
    assert (plan("L3").later[:, :, -1] == 0.0).all()
    assert (np.diff(plan("L2").later[-1], axis=1) > 0.0).all()
    assert (np.diff(plan("L2").later[:, :, -1], axis=0) > 0.0).all()


def test_moves_counted_on_a_long_stream_are_those_it_was_made_with() -> None:
    counted = counted_moves(regimes(100_000, np.random.default_rng(0)))
    np.testing.assert_allclose(counted, MOVES, atol=0.01)
    np.testing.assert_allclose(counted.sum(axis=1), 1.0)


def test_plan_from_a_sample_of_the_stream_is_almost_the_plan_from_the_law() -> None:
    sample = stream("L2").take(np.arange(3_000))
    learned = solve("L2", sample, counted_moves(regime_of(sample.volatility_ratio / 2.0)))
    reached = walk(learned.size, "L2", stream("L2")).expected.mean()
    assert reached == pytest.approx(optimum("L2").expected.mean(), rel=0.01)
