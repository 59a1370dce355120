"""The backtest against the environment, accounts kept by hand, and the limits it must never pass."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.account import NANOSECONDS_PER_DAY
from envs.guardrails import INVALID_PROPOSAL, MAX_DAILY_RISK, MAX_EXPOSURE, NONE, SIZES, Limits
from envs.observation import Situation
from envs.rewards import net_r
from envs.signal_table import SignalTable
from envs.sizing_env import Session, SizingEnv
from evaluation.backtest import Path, run, run_all
from evaluation.metrics import drawdown
from policies.baselines import FixedSize, PlugIn, RandomLegal, baselines
from tests.synthetic_signals import HOUR, START, table

LOOSE = {"max_position": 1.0, "max_exposure": 1.0, "max_daily_risk": 1.0, "max_drawdown": 0.9}


@dataclass
class Script:
    """Proposes what is written, signal by signal, and keeps what it saw."""

    proposals: Any
    snaps: bool = True
    name: str = "script"
    seen: list[Situation] = field(default_factory=list)

    def size(self, situation: Situation) -> np.ndarray:
        self.seen.append(situation)
        return np.array([self.proposals[len(self.seen) - 1]], dtype=np.float64)


def five_trades(**changed: Any) -> SignalTable:
    """Two trades one after the other, two that overlap (the later one settles first), and a last one."""
    at = np.array([0, 30, 60, 61, 100])
    until = np.array([5, 40, 90, 70, 130])
    return table(
        5,
        time=START + at * HOUR,
        exit_time=START + until * HOUR,
        gross_r=np.array([2.0, -1.0, 1.0, -0.5, 3.0]),
        cost_r=np.zeros(5),
        impact_r=np.zeros(5),
        out_of_distribution=np.zeros(5, dtype=bool),
        **changed,
    )


def test_rule_1x_on_five_trades_ends_where_it_does_on_paper() -> None:
    path = run(FixedSize(1.0, "rule 1x"), five_trades(), Limits(), 28.0)
    first = 1.02
    second = first * 0.99
    third = (
        second - 0.5 * 0.01 * second
    )  # both overlapping trades risk 1 % of the equity before either settled
    fourth = third + 0.01 * second
    fifth = fourth * 1.03
    assert path.equity == pytest.approx([1.0, first, second, third, fourth, fifth], rel=1e-12)
    assert ((path.time - START) // HOUR).tolist() == [0, 5, 40, 70, 90, 130]
    assert path.exposure == pytest.approx([0.01, 0.01, 0.01, 0.02, 0.01])
    assert path.net_r.tolist() == [2.0, -1.0, 1.0, -0.5, 3.0]
    assert np.all(path.multiplier == 1.0)
    assert np.all(path.binding == NONE)


def test_costs_are_charged_by_the_size_taken() -> None:
    made = five_trades()
    costly = table(
        5,
        time=made.time,
        exit_time=made.exit_time,
        gross_r=made.gross_r,
        cost_r=np.full(5, 0.1),
        impact_r=np.full(5, 0.04),
        out_of_distribution=np.zeros(5, dtype=bool),
    )
    path = run(FixedSize(0.25, "quarter"), costly, Limits(), 28.0)
    assert path.net_r == pytest.approx(0.25 * (made.gross_r - 0.1 - 0.04 * 0.5))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_backtest_equals_the_environment_step_for_step(seed: int) -> None:
    signals = table(250, seed=seed)
    # The environment's session begins with its first signal: so must the review window.
    early = signals.time[0] - START
    signals = replace(signals, time=signals.time - early, exit_time=signals.exit_time - early)
    days = 365.0
    limits = Limits(max_exposure=0.03, max_daily_risk=0.025, max_drawdown=0.3, max_open_trades=4)
    actions = np.random.default_rng(seed).integers(6, size=len(signals))
    script = Script(SIZES[actions])
    path = run(script, signals, limits, days)

    env = SizingEnv(signals, limits, Session(days=days))
    observation, info = env.reset(options={"first": [0], "drawdown": [0.0]})
    settled = path.equity[np.searchsorted(path.time[1:], signals.time, side="right")]
    over = False
    for i, action in enumerate(actions):
        assert not over
        assert np.array_equal(observation, script.seen[i].observation[0])
        assert np.array_equal(info["action_mask"], script.seen[i].mask[0])
        assert env.episodes.ledger.equity[0] == pytest.approx(settled[i], rel=1e-12)
        observation, reward, over, _, info = env.step(action)
        assert info["multiplier"] == path.multiplier[i]
        assert reward == pytest.approx(path.expected[i], abs=1e-12)
    assert over
    assert len(np.unique(path.binding)) > 3  # limits and flags did act on the way


def test_utilities_of_tiers_are_those_of_the_table() -> None:
    signals = table(200)
    path = run(RandomLegal(3), signals, Limits(), 28.0)
    tier = np.searchsorted(SIZES, path.multiplier)
    rows = np.arange(200)
    assert path.utility == pytest.approx(signals.realised[rows, tier], abs=1e-12)
    assert path.expected == pytest.approx(signals.expected[rows, tier], abs=1e-12)
    assert run(FixedSize(0.0, "none"), signals, Limits(), 28.0).expected.tolist() == [0.0] * 200


def test_a_session_follows_the_last_one() -> None:
    signals = table(120)
    script = Script(np.ones(120))
    run(script, signals, Limits(), 7.0)
    left = np.array([seen.observation[0, 11] for seen in script.seen])
    elapsed = signals.time / NANOSECONDS_PER_DAY
    assert left == pytest.approx(1.0 - (elapsed % 7.0) / 7.0, abs=1e-6)
    assert np.any(np.diff(left) > 0.5)


def test_an_account_at_its_drawdown_limit_waits_for_the_next_session() -> None:
    at = np.arange(40) * 12
    losing = table(
        40,
        time=START + at * HOUR,
        exit_time=START + (at + 1) * HOUR,
        gross_r=np.full(40, -1.0),
        cost_r=np.zeros(40),
        impact_r=np.zeros(40),
        out_of_distribution=np.zeros(40, dtype=bool),
    )
    path = run(FixedSize(1.0, "rule 1x"), losing, Limits(max_drawdown=0.05), 10.0)
    first, second = path.multiplier[:20], path.multiplier[20:]
    assert first[:3].tolist() == [1.0, 1.0, 1.0]
    assert np.all(first[8:] == 0.0)
    assert np.array_equal(first, second)
    assert path.equity[20] > 0.95
    assert path.equity[-1] == pytest.approx(path.equity[20] ** 2)


def test_outcomes_of_each_signals_own_are_read_signal_by_signal() -> None:
    shared = five_trades()
    own = replace(shared, outcome_r=np.broadcast_to(shared.outcome_r, shared.probability.shape))
    for policy in (PlugIn(), FixedSize(1.0, "rule 1x")):
        one, other = (run(policy, stream, Limits(), 28.0) for stream in (shared, own))
        np.testing.assert_array_equal(one.multiplier, other.multiplier)
        np.testing.assert_array_equal(one.expected, other.expected)


@pytest.mark.parametrize("policy", range(len(baselines())))
def test_a_backtest_gives_the_same_path_every_time(policy: int) -> None:
    signals = table(80)
    one = run(baselines(4)[policy], signals, Limits(), 28.0)
    two = run(baselines(4)[policy], signals, Limits(), 28.0)
    for name in ("multiplier", "binding", "utility", "expected", "net_r", "time", "equity", "exposure"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


def test_a_policy_sees_nothing_of_the_outcome_it_sizes() -> None:
    signals = table(100)
    later = table(100, gross_r=np.where(np.arange(100) >= 60, -3.0, signals.gross_r))
    one, two = (run(PlugIn(), which, Limits(), 28.0) for which in (signals, later))
    assert np.array_equal(one.multiplier[:61], two.multiplier[:61])


def test_a_proposal_that_is_no_size_gets_the_rules_own_and_is_named() -> None:
    path = run(Script([np.nan, np.inf, -1.0, -np.inf, np.nan]), five_trades(), Limits(), 28.0)
    assert np.all(path.multiplier == 1.0)
    assert np.all(path.binding == INVALID_PROPOSAL)


def test_a_fine_tuned_size_is_clamped_to_the_cap_and_a_tier_is_floored() -> None:
    limits = Limits(**(LOOSE | {"max_exposure": 0.017}))
    fine = run(Script([0.9] * 5, snaps=False), five_trades(), limits, 28.0)
    assert fine.multiplier[:3].tolist() == [0.9] * 3
    assert fine.multiplier[3] == pytest.approx(0.8)
    assert fine.binding[3] == MAX_EXPOSURE
    snapped = run(Script([1.0] * 5), five_trades(), limits, 28.0)
    assert snapped.multiplier.tolist() == [1.0, 1.0, 1.0, 0.5, 1.0]


def test_an_exhausted_day_allows_nothing_until_midnight() -> None:
    at = np.array([0, 1, 2, 24])
    signals = table(
        4,
        time=START + at * HOUR,
        exit_time=START + (at + 1) * HOUR,
        out_of_distribution=np.zeros(4, dtype=bool),
    )
    path = run(FixedSize(1.0, "rule 1x"), signals, Limits(**(LOOSE | {"max_daily_risk": 0.02})), 28.0)
    assert path.multiplier.tolist() == [1.0, 1.0, 0.0, 1.0]
    assert path.binding.tolist() == [NONE, NONE, MAX_DAILY_RISK, NONE]


fractions = st.floats(0.0, 0.3)


@st.composite
def some_limits(draw: st.DrawFn) -> Limits:
    return Limits(
        base_risk=draw(st.floats(0.001, 0.05)),
        max_position=draw(fractions),
        max_exposure=draw(fractions),
        max_daily_risk=draw(fractions),
        max_drawdown=draw(st.floats(0.02, 0.6)),
        gap_factor=draw(st.floats(1.0, 3.0)),
        max_open_trades=draw(st.integers(1, 6)),
        rule_cap=draw(st.floats(0.0, 1.5)),
        allow_skip=draw(st.booleans()),
    )


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    limits=some_limits(),
    snaps=st.booleans(),
    nonsense=st.sampled_from([0.0, 0.3, 1.0]),
    session_days=st.sampled_from([3.0, 365.0]),
)
def test_no_policy_ever_passes_a_limit(
    seed: int, limits: Limits, snaps: bool, nonsense: float, session_days: float
) -> None:
    random = np.random.default_rng(seed)
    n = 50
    proposals = random.uniform(0.0, 2.0, size=n)
    wild = random.random(n) < nonsense
    proposals[wild] = random.choice([np.nan, np.inf, -np.inf, -1.0, 1e300, 5e-324], size=int(wild.sum()))
    gross = np.maximum(random.normal(0.0, 2.0, size=n), 0.2 - limits.gap_factor)
    signals = table(n, seed=seed % 1000, gross_r=gross, base_risk=limits.base_risk)
    path = run(Script(proposals, snaps), signals, limits, session_days)
    assert np.all((path.multiplier >= 0.0) & (path.multiplier <= limits.rule_cap))
    assert_within_limits(path, signals, limits, session_days)


def assert_within_limits(path: Path, signals: SignalTable, limits: Limits, session_days: float) -> None:
    """Walk the path again with an account of its own, looking at every limit whenever a trade is opened."""
    slack = 1e-9
    r = net_r(path.multiplier, signals.gross_r, signals.cost_r, signals.impact_r)
    floor_share = 1.0 - limits.max_drawdown
    equity = peak = 1.0
    trades: list[tuple[int, float, float]] = []
    opened: dict[int, float] = {}
    session = signals.time // int(session_days * NANOSECONDS_PER_DAY)
    for i, now in enumerate(signals.time.tolist()):
        for trade in sorted((t for t in trades if t[0] <= now), key=lambda t: t[0]):
            trades.remove(trade)
            equity += trade[2]
            peak = max(peak, equity)
            assert equity >= floor_share * peak - slack
        if i and session[i] != session[i - 1]:
            peak = equity  # the operator's review
        risk = float(path.multiplier[i]) * limits.base_risk
        if risk > 0.0:
            day = now // NANOSECONDS_PER_DAY
            opened[day] = opened.get(day, 0.0) + risk
            trades.append((int(signals.exit_time[i]), risk * equity, risk * equity * float(r[i])))
            exposed = sum(t[1] for t in trades)
            assert risk <= limits.max_position + slack
            assert exposed / equity <= limits.max_exposure + slack
            assert path.exposure[i] == pytest.approx(exposed / equity)
            assert opened[day] <= limits.max_daily_risk + slack
            assert len(trades) <= limits.max_open_trades
            assert equity - limits.gap_factor * exposed >= floor_share * peak - slack
    if session[-1] == 0:
        assert np.max(drawdown(path.equity)) <= limits.max_drawdown + slack


def test_sizers_walked_together_do_what_each_does_alone() -> None:
    signals = table(250, seed=3)
    tight = Limits(max_exposure=0.03, max_daily_risk=0.025, max_drawdown=0.3, max_open_trades=4)
    free = Script(np.random.default_rng(0).uniform(0.0, 1.6, 250), snaps=False, name="fine")
    again = Script(free.proposals, snaps=False, name="fine")
    together = run_all((*baselines(2), free), signals, tight, 28.0)
    for path, policy in zip(together, (*baselines(2), again), strict=True):
        alone = run(policy, signals, tight, 28.0)
        for name in ("multiplier", "binding", "utility", "expected", "net_r", "time", "equity", "exposure"):
            assert np.array_equal(getattr(path, name), getattr(alone, name)), (policy.name, name)
