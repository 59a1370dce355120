"""Were the limits kept? A backtest's path gone over again, without the ledger or the guardrail that made it.

Knows nothing of policies.
"""

from typing import Final

import numpy as np

from envs.account import NANOSECONDS_PER_DAY
from envs.guardrails import LARGEST_SIZE, Limits
from envs.observation import review_window
from envs.signal_table import SignalTable
from evaluation.backtest import Path

ROUNDING: Final = 1e-9  # of equity


def breaches(path: Path, table: SignalTable, limits: Limits, session_days: float) -> int:
    """How many decisions of `path` took more than `limits` allowed at that moment; arguments as
    `backtest.run`.

    Counted are sizes above the largest multiplier, one position's risk, open risk, a day's risk, open trades,
    and a position opened so near the drawdown limit that a gap through every stop would pass it. What the
    market then does with an open trade is no breach.
    """
    taken = path.multiplier > 0.0
    risk = path.multiplier * limits.base_risk
    settled = np.searchsorted(path.time[1:], table.time, side="right")
    equity = path.equity[settled]

    exits = np.sort(table.exit_time[taken])
    open_trades = np.cumsum(taken) - np.searchsorted(exits, table.time, side="right")
    by_exit = np.argsort(table.exit_time, kind="stable")
    stake = risk * equity
    closed = np.concatenate([[0.0], np.cumsum(stake[by_exit])])
    open_risk = (np.cumsum(stake) - closed[settled]) / equity

    _, of_day = np.unique(table.time // NANOSECONDS_PER_DAY, return_inverse=True)
    spent = np.cumsum(risk)
    first_of_day = np.concatenate([[0], np.flatnonzero(np.diff(of_day)) + 1])
    daily = spent - (spent - risk)[first_of_day][of_day]

    session, _ = review_window(table.time, session_days)
    first = np.searchsorted(session, session, side="left")  # the session's first signal, when it is reviewed
    since = np.where(first > 0, settled[first], 0)
    peak = np.array([path.equity[a : b + 1].max() for a, b in zip(since, settled, strict=True)])
    floor = (1.0 - limits.max_drawdown) * peak

    broken = path.multiplier > min(limits.rule_cap, LARGEST_SIZE) + ROUNDING
    broken |= risk > limits.max_position + ROUNDING
    broken |= open_risk > limits.max_exposure + ROUNDING
    broken |= daily > limits.max_daily_risk + ROUNDING
    broken |= open_trades > limits.max_open_trades
    broken |= equity * (1.0 - limits.gap_factor * open_risk) < floor - ROUNDING
    return int(np.sum(broken & taken))
