"""The ledger against a slow account written in plain Python."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.account import NANOSECONDS_PER_DAY, Ledger
from tests.synthetic_signals import HOUR, START

BASE_RISK = 0.01
SLOTS = 8


@dataclass
class SlowAccount:
    """One account, as one would write it on paper."""

    equity: float = 1.0
    peak: float = 1.0
    today: int = -1
    daily_risk: float = 0.0
    trades: list[tuple[int, float, float]] = field(default_factory=list)  # exit time, risk, profit; as opened

    def settle(self, now: int) -> None:
        if now // NANOSECONDS_PER_DAY != self.today:
            self.today, self.daily_risk = now // NANOSECONDS_PER_DAY, 0.0
        for trade in sorted((t for t in self.trades if t[0] <= now), key=lambda t: t[0]):
            self.equity = max(self.equity + trade[2], 1e-9)
            self.peak = max(self.peak, self.equity)
            self.trades.remove(trade)

    def open(self, multiplier: float, net_r: float, exit_time: int) -> None:
        if multiplier > 0.0:
            stake = multiplier * BASE_RISK * self.equity
            self.trades.append((exit_time, stake, stake * net_r))
            self.daily_risk += multiplier * BASE_RISK


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), longest=st.sampled_from([2, 30, 200]))
def test_the_ledger_equals_a_slow_account_trade_by_trade(seed: int, longest: int) -> None:
    random = np.random.default_rng(seed)
    accounts = 3
    ledger, slow = Ledger.of(accounts, SLOTS), [SlowAccount() for _ in range(accounts)]
    now = np.full(accounts, START)
    for _ in range(60):
        now = now + random.integers(0, 16, size=accounts) * HOUR
        ledger.settle(now)
        for i, one in enumerate(slow):
            one.settle(int(now[i]))
            assert ledger.equity[i] == pytest.approx(one.equity, rel=1e-13)
            assert ledger.peak[i] == pytest.approx(one.peak, rel=1e-13)
            assert ledger.open_risk[i] == pytest.approx(sum(t[1] for t in one.trades), abs=1e-14)
            assert ledger.daily_risk[i] == pytest.approx(one.daily_risk, abs=1e-14)
            assert ledger.count[i] == len(one.trades)
        multiplier = np.where(ledger.count < SLOTS, random.choice([0.0, 0.25, 1.0, 1.5], size=accounts), 0.0)
        net_r = random.choice([-1.5, -1.0, 0.3, 2.0], size=accounts)
        exits = now + random.integers(1, longest, size=accounts) * HOUR
        ledger.open(multiplier, BASE_RISK, net_r, exits)
        for i, one in enumerate(slow):
            one.open(float(multiplier[i]), float(net_r[i]), int(exits[i]))


def test_equity_ends_at_one_plus_all_profits() -> None:
    random = np.random.default_rng(1)
    ledger = Ledger.of(1, 32)
    profits = 0.0
    now = START
    for _ in range(200):
        now += int(random.integers(1, 10)) * HOUR
        ledger.settle(np.array([now]))
        net_r = float(random.choice([-1.0, 2.0]))
        profits += 1.25 * BASE_RISK * ledger.equity[0] * net_r
        exits = np.array([now + int(random.integers(1, 20)) * HOUR])
        ledger.open(np.array([1.25]), BASE_RISK, np.array([net_r]), exits)
    ledger.settle(np.array([now + 100 * HOUR]))
    assert ledger.count[0] == 0
    assert ledger.open_risk[0] == 0.0
    assert ledger.equity[0] == pytest.approx(1.0 + profits, rel=1e-12)


def test_a_profit_is_unseen_until_the_very_moment_of_its_exit() -> None:
    ledger = Ledger.of(1, SLOTS)
    ledger.settle(np.array([START]))
    ledger.open(np.ones(1), BASE_RISK, np.array([2.0]), np.array([START + HOUR]))
    ledger.settle(np.array([START + HOUR - 1]))
    assert ledger.equity[0] == 1.0
    assert ledger.open_risk[0] == BASE_RISK
    ledger.settle(np.array([START + HOUR]))
    assert ledger.equity[0] == 1.02
    assert ledger.open_risk[0] == 0.0


def test_the_daily_budget_is_new_at_utc_midnight_while_open_risk_stays() -> None:
    ledger = Ledger.of(1, SLOTS)
    late = START + 23 * HOUR
    ledger.settle(np.array([late]))
    ledger.open(np.ones(1), BASE_RISK, np.zeros(1), np.array([START + 90 * HOUR]))
    ledger.settle(np.array([START + 24 * HOUR - 1]))
    assert ledger.daily_risk[0] == BASE_RISK
    ledger.settle(np.array([START + 24 * HOUR]))
    assert ledger.daily_risk[0] == 0.0
    assert ledger.open_risk[0] == BASE_RISK


def test_a_review_lets_drawdown_count_from_the_equity_of_that_moment() -> None:
    ledger = Ledger.of(2, SLOTS)
    ledger.settle(np.full(2, START))
    ledger.open(np.ones(2), BASE_RISK, np.array([-1.0, 2.0]), np.full(2, START + HOUR))
    ledger.settle(np.full(2, START + HOUR))
    assert ledger.peak.tolist() == [1.0, 1.02]
    ledger.review()
    assert ledger.peak.tolist() == [0.99, 1.02]


def test_a_skipped_signal_leaves_the_account_as_it_was() -> None:
    ledger = Ledger.of(1, SLOTS)
    ledger.settle(np.array([START]))
    ledger.open(np.zeros(1), BASE_RISK, np.array([-1.0]), np.array([START + HOUR]))
    ledger.settle(np.array([START + 2 * HOUR]))
    assert ledger.equity[0] == 1.0
    assert ledger.count[0] == 0
    assert ledger.daily_risk[0] == 0.0


def test_a_gap_past_ruin_leaves_a_remainder_and_no_negative_equity() -> None:
    ledger = Ledger.of(1, SLOTS)
    ledger.settle(np.array([START]))
    ledger.open(np.ones(1), BASE_RISK, np.array([-500.0]), np.array([START + HOUR]))
    ledger.settle(np.array([START + HOUR]))
    assert ledger.equity[0] == 1e-9


def test_six_trades_of_one_percent_count_as_exactly_six_percent() -> None:
    ledger = Ledger.of(1, SLOTS)
    ledger.settle(np.array([START]))
    for _ in range(6):
        ledger.open(np.ones(1), BASE_RISK, np.zeros(1), np.array([START + HOUR]))
    account = ledger.account()
    assert np.asarray(account.open_risk)[0] == 0.06
    assert np.asarray(account.daily_risk_used)[0] == 0.06


def test_a_reset_touches_only_its_own_accounts() -> None:
    ledger = Ledger.of(3, SLOTS)
    ledger.settle(np.full(3, START))
    ledger.open(np.ones(3), BASE_RISK, np.full(3, -1.0), np.full(3, START + HOUR))
    ledger.settle(np.full(3, START + HOUR))
    ledger.open(np.ones(3), BASE_RISK, np.full(3, 2.0), np.full(3, START + 9 * HOUR))
    ledger.reset(np.array([False, True, False]), np.array([0.1]))
    assert ledger.equity.tolist() == [0.99, 1.0, 0.99]
    assert ledger.peak == pytest.approx([1.0, 1.0 / 0.9, 1.0])
    assert ledger.count.tolist() == [1, 0, 1]
    assert ledger.open_risk == pytest.approx([0.0099, 0.0, 0.0099])
    ledger.settle(np.full(3, START + 9 * HOUR))
    assert ledger.equity == pytest.approx([0.99 * 1.02, 1.0, 0.99 * 1.02])
