"""The ledger of N accounts: trades open, settle in the order of their exits, and move equity, peak and daily
risk.

Knows nothing of policies or rewards. State is flat arrays changed in place by two compiled steps, so that one
account and thousands go through the same arithmetic.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from envs.guardrails import RISK_DECIMALS, Account
from market.compiled import compiled

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NANOSECONDS_PER_DAY = 86_400_000_000_000
LEAST_EQUITY = 1e-9  # an account that a gap ruined owes nothing and can trade nothing that matters


@dataclass(frozen=True)
class Ledger:
    """N accounts with room for K open trades each."""

    equity: Floats  # [N]
    peak: Floats  # [N]
    open_risk: Floats  # [N], in units of equity
    day: Integers  # [N], UTC day of the last look
    daily_risk: Floats  # [N], fraction of equity opened on that day
    count: Integers  # [N], open trades
    exit_time: Integers  # [N, K], ns
    risk: Floats  # [N, K], in units of equity
    profit: Floats  # [N, K], booked at exit, in units of equity

    @classmethod
    def of(cls, accounts: int, max_open_trades: int) -> "Ledger":
        """Fresh accounts: equity 1, no trades."""
        slots = (accounts, max_open_trades)
        return cls(
            np.ones(accounts),
            np.ones(accounts),
            np.zeros(accounts),
            np.full(accounts, -1),
            np.zeros(accounts),
            np.zeros(accounts, dtype=np.int64),
            np.zeros(slots, dtype=np.int64),
            np.zeros(slots),
            np.zeros(slots),
        )

    def repeated(self, times: int) -> "Ledger":
        """Copies: `times` of each account in a row."""
        return Ledger(*(np.repeat(getattr(self, column.name), times, axis=0) for column in fields(self)))

    def reset(self, rows: npt.NDArray[np.bool_] | Integers, drawdown: Floats) -> None:
        """Start `rows` again with equity 1 and a peak that leaves them at the given drawdown (fractions)."""
        self.equity[rows] = 1.0
        self.peak[rows] = 1.0 / (1.0 - drawdown)
        for column in (self.open_risk, self.daily_risk, self.count):
            column[rows] = 0
        self.day[rows] = -1

    def review(self) -> None:
        """Let drawdown count from here: what an operator does after looking into a loss."""
        self.peak[:] = self.equity

    def settle(self, now: Integers) -> None:
        """Book every trade whose exit is at or before `now` (int64[N], ns), and open a new daily budget by
        UTC day.
        """
        _settle(
            now,
            self.equity,
            self.peak,
            self.open_risk,
            self.day,
            self.daily_risk,
            self.count,
            self.exit_time,
            self.risk,
            self.profit,
        )

    def open(self, multiplier: Floats, base_risk: float, net_r: Floats, exit_time: Integers) -> None:
        """Open one trade for each account with `multiplier` > 0; its profit stays unseen until it settles."""
        _open(
            multiplier,
            base_risk,
            net_r,
            exit_time,
            self.equity,
            self.open_risk,
            self.daily_risk,
            self.count,
            self.exit_time,
            self.risk,
            self.profit,
        )

    def account(self) -> Account:
        """The accounts as the limits see them."""
        return Account(
            self.equity,
            self.peak,
            np.round(self.open_risk / self.equity, RISK_DECIMALS),
            np.round(self.daily_risk, RISK_DECIMALS),
            self.count,
        )


@compiled()
def _settle(
    now: Integers,
    equity: Floats,
    peak: Floats,
    open_risk: Floats,
    day: Integers,
    daily_risk: Floats,
    count: Integers,
    exit_time: Integers,
    risk: Floats,
    profit: Floats,
) -> None:
    for i in range(len(now)):
        today = now[i] // NANOSECONDS_PER_DAY
        if today != day[i]:
            day[i] = today
            daily_risk[i] = 0.0
        before = count[i]
        while count[i] > 0:
            first = 0
            for slot in range(1, count[i]):
                if exit_time[i, slot] < exit_time[i, first]:
                    first = slot
            if exit_time[i, first] > now[i]:
                break
            equity[i] = max(equity[i] + profit[i, first], LEAST_EQUITY)
            peak[i] = max(peak[i], equity[i])
            last = count[i] - 1
            for slot in range(first, last):  # keep the order of opening: sums stay reproducible
                exit_time[i, slot] = exit_time[i, slot + 1]
                risk[i, slot] = risk[i, slot + 1]
                profit[i, slot] = profit[i, slot + 1]
            count[i] = last
        if count[i] != before:
            total = 0.0
            for slot in range(count[i]):
                total += risk[i, slot]
            open_risk[i] = total


@compiled()
def _open(
    multiplier: Floats,
    base_risk: float,
    net_r: Floats,
    exits: Integers,
    equity: Floats,
    open_risk: Floats,
    daily_risk: Floats,
    count: Integers,
    exit_time: Integers,
    risk: Floats,
    profit: Floats,
) -> None:
    for i in range(len(multiplier)):
        if multiplier[i] > 0.0:
            stake = multiplier[i] * base_risk * equity[i]
            slot = count[i]
            if slot == exit_time.shape[1]:
                raise IndexError("an account has no room for another open trade: apply the limits first")
            exit_time[i, slot] = exits[i]
            risk[i, slot] = stake
            profit[i, slot] = stake * net_r[i]
            count[i] = slot + 1
            open_risk[i] += stake
            daily_risk[i] += multiplier[i] * base_risk
