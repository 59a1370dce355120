"""Agents with a known flaw attack the environment: each must end where theory puts it.

An environment that pays idling, forgets costs, rewards changes of mind or shows the future would rank them
otherwise.
"""

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest

from envs.guardrails import LARGEST_SIZE, Limits
from envs.observation import Situation
from envs.oracle_market import Task, best_tiers, market
from envs.oracle_score import Walk, walk
from envs.oracle_solution import oracle
from envs.signal_table import SignalTable, signal_table
from evaluation.backtest import run
from market import synthetic
from policies.baselines import FixedSize, PlugIn, RandomLegal
from signals.outcome_model import OutcomeModel
from signals.outcomes import Costs, label, trade_fields, trade_ranks
from signals.rules import DonchianBreakout, checked

TASKS: tuple[Task, ...] = ("L1", "L2", "L3")
IDLE, ALWAYS_MAX, RANDOM = FixedSize(0.0, "idle"), FixedSize(LARGEST_SIZE, "always max"), RandomLegal()
WIDE = Limits(
    max_position=1.0, max_exposure=1.0, max_daily_risk=1.0, max_drawdown=0.999, max_open_trades=1024
)


@dataclass
class Churn:
    """Nothing, then all, then nothing again."""

    name: str = "churn"
    snaps: bool = True
    calls: int = field(default=0)

    def size(self, situation: Situation) -> np.ndarray:
        self.calls += 1
        return np.full(len(situation.cap), LARGEST_SIZE * (self.calls % 2))


@dataclass(frozen=True)
class Fitted:
    """The plug-in as a desk has it: with an outcome model fitted to trades of another stream."""

    model: OutcomeModel
    name: str = "plug-in"
    snaps: bool = True

    def size(self, situation: Situation) -> np.ndarray:
        fields = situation.observation[:, :6].astype(np.float64)
        believed = self.model.probability(fields)
        return PlugIn().size(situation._replace(probability=believed, outcome_r=self.model.outcome_r))


def leaked(table: SignalTable) -> SignalTable:
    """The stream with what will happen in place of its probabilities."""
    return replace(table, probability=np.ones((len(table), 1)), outcome_r=table.gross_r[:, None])


@cache
def stream(task: Task, edge: float) -> SignalTable:
    return market(task, 6_000, edge, seed=9)


@cache
def fitted(edge: float) -> Fitted:
    train = market("L1", 3_000, edge, seed=8)
    fields = train.market[:, :6].astype(np.float64)
    return Fitted(OutcomeModel.fit(fields, train.gross_r, train.time, train.exit_time))


@cache
def attacked(task: Task, edge: float) -> dict[str, Walk]:
    table = stream(task, edge)
    agents = [IDLE, ALWAYS_MAX, Churn(), RANDOM, fitted(edge), oracle(task, edge, fineness=7)]
    walked = {agent.name: walk(agent.size, task, table) for agent in agents}
    return walked | {"leaky": walk(PlugIn().size, task, leaked(table))}


@pytest.mark.parametrize("task", TASKS)
def test_agents_rank_as_theory_says_where_there_is_something_to_find(task: Task) -> None:
    found = attacked(task, 1.0)
    realised = {name: one.realised.mean() for name, one in found.items()}
    expected = {name: one.expected.mean() for name, one in found.items()}
    assert realised["leaky"] > 2.0 * realised["oracle"], "who sees the outcome must leave everyone behind"
    assert expected["oracle"] > expected["plug-in"] > expected["idle"] == 0.0
    assert expected["plug-in"] > expected["random legal"]
    if task == "L1":  # no limit holds them back
        assert 0.0 > expected["random legal"] > expected["always max"]
        assert 0.0 > expected["churn"] > expected["always max"]
        assert expected["churn"] == pytest.approx(0.5 * expected["always max"], rel=0.15)


@pytest.mark.parametrize("task", TASKS)
def test_without_an_edge_nothing_but_the_future_earns_anything(task: Task) -> None:
    found = attacked(task, 0.0)
    assert found["leaky"].realised.mean() > 0.2
    assert (found["oracle"].multiplier == 0.0).all(), "costs are all there is to win"
    losers = [name for name in found if name not in ("leaky", "oracle", "idle")]
    assert all(found[name].expected.mean() <= 0.0 for name in losers)
    assert all(found[name].expected.mean() < 0.0 for name in ("always max", "churn", "random legal"))


@pytest.mark.parametrize("edge", [0.0, 1.0])
@pytest.mark.parametrize("task", TASKS)
def test_idle_earns_exactly_nothing(task: Task, edge: float) -> None:
    idle = attacked(task, edge)["idle"]
    assert (idle.multiplier == 0.0).all()
    assert (idle.realised == 0.0).all()
    assert (idle.expected == 0.0).all()


def test_always_max_loses_its_costs_and_the_price_of_its_risk_without_an_edge() -> None:
    table = stream("L1", 0.0)
    always = attacked("L1", 0.0)["always max"]
    costs = LARGEST_SIZE * table.cost_r[: len(always.expected)].mean()
    assert always.expected.mean() < -costs, "a concave utility pays nothing for risk"
    earned = LARGEST_SIZE * (table.gross_r - table.cost_r)
    assert earned.mean() == pytest.approx(-costs, abs=4.0 * earned.std() / np.sqrt(len(earned)))


def test_a_change_of_mind_neither_costs_nor_earns_by_itself() -> None:
    """Every signal is a trade of its own: sizing it is paid the same whatever the one before was sized."""
    table, churn = stream("L1", 1.0), attacked("L1", 1.0)["churn"]
    taken = churn.multiplier > 0.0
    np.testing.assert_array_equal(churn.realised[taken], table.realised[: len(taken)][taken, 5])
    assert (churn.realised[~taken] == 0.0).all()


def test_leaky_agent_is_leaky_by_what_it_is_shown_alone() -> None:
    """The same plug-in without the leak is the closed form: the environment itself shows nothing."""
    table = stream("L1", 1.0)
    honest = walk(PlugIn().size, "L1", table)
    leaky = attacked("L1", 1.0)["leaky"]
    assert np.corrcoef(leaky.multiplier, table.gross_r > 0)[0, 1] == pytest.approx(1.0)
    rows = np.arange(len(table))
    np.testing.assert_allclose(honest.realised, table.realised[rows, best_tiers(table)])


@pytest.fixture(scope="module")
def driftless() -> SignalTable:
    """A breakout rule's trades on bars that go nowhere, labelled as real ones are."""
    patch = pytest.MonkeyPatch()
    patch.setattr(synthetic, "REGIMES", tuple(one._replace(drift=0.0) for one in synthetic.REGIMES))
    bars = synthetic.regimes(40_000, seed=4)
    patch.undo()
    rule = DonchianBreakout()
    trades = label(bars, checked(rule.generate(bars), bars), Costs())
    n = len(trades.gross_r)
    return signal_table(
        time=trades.signal_time,
        exit_time=trades.exit_time,
        symbol=trades.symbol,
        signal_fields=trade_fields(trades, trade_ranks(trades)),
        gross_r=trades.gross_r,
        cost_r=trades.cost_r,
        impact_r=trades.impact_r,
        probability=np.full((n, 2), 0.5),
        outcome_r=np.array([-1.0, 1.0]),
        volatility_ratio=np.ones(n),
        out_of_distribution=np.zeros(n, dtype=np.bool_),
        k=8.0,
        base_risk=0.01,
        prior_win_rate=0.5,
    )


def test_trades_on_driftless_bars_are_worth_nothing_before_costs(driftless: SignalTable) -> None:
    """No barrier, fill or gap pays by itself: what the labels call profit is profit."""
    gross = driftless.gross_r
    assert len(gross) > 1_000
    assert abs(gross.mean()) < 4.0 * gross.std() / np.sqrt(len(gross))


def test_agents_rank_as_theory_says_on_driftless_bars(driftless: SignalTable) -> None:
    some = driftless.take(np.arange(1_000))
    paths = {agent.name: run(agent, some, WIDE, 28.0) for agent in (IDLE, ALWAYS_MAX, Churn(), RANDOM)}
    earned = {name: path.utility.mean() for name, path in paths.items()}
    earned["leaky"] = run(PlugIn(), leaked(some), WIDE, 28.0).utility.mean()
    order = sorted(earned, key=lambda name: -earned[name])
    assert order[:2] == ["leaky", "idle"]
    assert order[-1] == "always max"
    assert earned["idle"] == 0.0
    assert (paths["idle"].equity == 1.0).all()
    assert paths["always max"].net_r.sum() < 0.0
    assert paths["always max"].equity[-1] < 1.0
