"""One account walked through a signal stream under a policy: the same ledger, guardrail and costs as training
and serving.

Knows nothing of statistics or pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from envs.account import LEAST_EQUITY, Ledger
from envs.guardrails import Limits, allowed, bound, cap
from envs.observation import Situation, observe, review_window, session_left
from envs.rewards import net_r
from envs.signal_table import SignalTable
from market.errors import ConfigError
from policies.decision import Policy

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Path:
    """What a policy did with n signals, and what became of the account."""

    name: str
    multiplier: Floats  # [n]
    binding: npt.NDArray[np.int8]  # [n], the rule that changed the proposal, an index into guardrails.RULES
    utility: Floats  # [n], realised, in R
    expected: Floats  # [n], under the outcome model
    net_r: Floats  # [n], at the chosen size per unit of base position: multiplier x net R
    time: Integers  # [n + 1], ns: each settlement in order, from the first signal on
    equity: Floats  # [n + 1], after each settlement, starting at 1
    exposure: Floats  # [n], open risk after the decision, fraction of equity


def run(policy: Policy, table: SignalTable, limits: Limits, session_days: float) -> Path:
    """Size every signal of `table` in time order, in one unbroken account that starts at equity 1.

    See `relay`.
    """
    return relay({0: policy}, table, limits, session_days)


def relay(policies: Mapping[int, Policy], table: SignalTable, limits: Limits, session_days: float) -> Path:
    """`run` with a change of policy on the way: `policies` by the row from which each is in charge, 0 first.

    The account is handed on with its open trades. At the start of each review window the operator looks at
    it: the drawdown limit counts from the equity of that moment, so that an account that reached it trades
    again in the next session.
    """
    if limits.base_risk != table.base_risk:
        raise ConfigError(
            "limits.base_risk", limits.base_risk, f"the table's utilities are for {table.base_risk}"
        )
    n = len(table)
    ledger = Ledger.of(1, limits.max_open_trades)
    multiplier, exposure = np.zeros(n), np.zeros(n)
    binding = np.zeros(n, dtype=np.int8)
    stake = np.zeros(n)
    session, elapsed = review_window(table.time, session_days)
    policy = policies[0]
    for i in range(n):
        policy = policies.get(i, policy)
        row = slice(i, i + 1)
        now = table.time[row]
        ledger.settle(now)
        if i and session[i] != session[i - 1]:
            ledger.review()
        account = ledger.account()
        largest, rule = cap(account, limits)
        left = session_left(elapsed[row], session_days)
        situation = Situation(
            observation=observe(table.market[row], account, largest, limits, left),
            mask=allowed(largest, limits),
            cap=largest,
            probability=table.probability[row],
            outcome_r=table.outcomes(row),
            cost_r=table.cost_r[row],
            impact_r=table.impact_r[row],
            volatility_ratio=table.volatility_ratio[row],
            settled_kelly=table.settled_kelly[row],
            settled_optimal=table.settled_optimal[row],
            k=table.k,
            base_risk=table.base_risk,
        )
        guarded = bound(
            policy.size(situation),
            largest,
            rule,
            limits,
            snap=policy.snaps,
            out_of_distribution=table.out_of_distribution[row],
        )
        size = guarded.multiplier
        stake[i] = size[0] * limits.base_risk * ledger.equity[0]
        ledger.open(
            size,
            limits.base_risk,
            net_r(size, table.gross_r[row], table.cost_r[row], table.impact_r[row]),
            table.exit_time[row],
        )
        multiplier[i], binding[i] = size[0], guarded.binding[0]
        exposure[i] = ledger.open_risk[0] / ledger.equity[0]
    r = net_r(multiplier, table.gross_r, table.cost_r, table.impact_r)
    by_exit = np.argsort(table.exit_time, kind="stable")
    equity = [1.0]
    for profit in (stake * r)[by_exit]:
        equity.append(max(equity[-1] + profit, LEAST_EQUITY))
    return Path(
        name=policy.name,
        multiplier=multiplier,
        binding=binding,
        utility=table.utility_of(multiplier, slice(None), realised=True),
        expected=table.utility_of(multiplier, slice(None), realised=False),
        net_r=multiplier * r,
        time=np.concatenate([table.time[:1], table.exit_time[by_exit]]),
        equity=np.array(equity),
        exposure=exposure,
    )
