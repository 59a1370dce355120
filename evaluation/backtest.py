"""One account walked through a signal stream under a policy: the same ledger, guardrail and costs as training
and serving.

Knows nothing of statistics or pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from envs.account import LEAST_EQUITY, Ledger
from envs.guardrails import Limits, allowed, as_rows, bound, cap
from envs.observation import observe, review_window, session_left
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

    See `relay_all`.
    """
    return relay_all([{0: policy}], table, limits, session_days)[0]


def run_all(
    policies: Sequence[Policy], table: SignalTable, limits: Limits, session_days: float
) -> list[Path]:
    """`run` for each policy, in an account of its own."""
    return relay_all([{0: policy} for policy in policies], table, limits, session_days)


def relay_all(
    relays: Sequence[Mapping[int, Policy]], table: SignalTable, limits: Limits, session_days: float
) -> list[Path]:
    """`run` with changes of policy on the way, for N relays at once: each maps the row from which a policy is
    in charge, 0 first, to that policy.

    An account is handed on with its open trades. At the start of each review window the operator looks at it:
    the drawdown limit counts from the equity of that moment, so that an account that reached it trades again
    in the next session.
    """
    if limits.base_risk != table.base_risk:
        raise ConfigError(
            "limits.base_risk", limits.base_risk, f"the table's utilities are for {table.base_risk}"
        )
    n, accounts = len(table), len(relays)
    if not accounts:
        return []
    ledger, limit_rows = Ledger.of(accounts, limits.max_open_trades), as_rows(limits)
    multiplier, exposure, stake = (np.zeros((accounts, n)) for _ in range(3))
    binding = np.zeros((accounts, n), dtype=np.int8)
    session, elapsed = review_window(table.time, session_days)
    policies = [relay[0] for relay in relays]
    for i in range(n):
        policies = [relay.get(i, policy) for relay, policy in zip(relays, policies, strict=True)]
        row = slice(i, i + 1)
        ledger.settle(np.repeat(table.time[row], accounts))
        if i and session[i] != session[i - 1]:
            ledger.review()
        account = ledger.account()
        largest, rule = cap(account, limit_rows)
        left = session_left(elapsed[row], session_days)
        market = np.repeat(table.market[row], accounts, axis=0)
        observation = observe(market, account, largest, limit_rows, left)
        mask = allowed(largest, limit_rows)
        proposed = np.empty(accounts)
        for own, policy in enumerate(policies):
            one = slice(own, own + 1)
            situation = table.situation(row, observation[one], mask[one], largest[one])
            proposed[own] = policy.size(situation)[0]
        size = multiplier[:, i]
        for snap in {policy.snaps for policy in policies}:
            rows = np.array([policy.snaps == snap for policy in policies])
            guarded = bound(
                proposed[rows],
                largest[rows],
                rule[rows],
                limit_rows,
                snap=snap,
                out_of_distribution=table.out_of_distribution[row],
            )
            multiplier[rows, i], binding[rows, i] = guarded.multiplier, guarded.binding
        stake[:, i] = size * limits.base_risk * ledger.equity
        outcome = net_r(size, table.gross_r[row], table.cost_r[row], table.impact_r[row])
        ledger.open(size, limits.base_risk, outcome, np.repeat(table.exit_time[row], accounts))
        exposure[:, i] = ledger.open_risk / ledger.equity
    return [
        _path(policy.name, table, multiplier[own], binding[own], stake[own], exposure[own])
        for own, policy in enumerate(policies)
    ]


def _path(
    name: str,
    table: SignalTable,
    multiplier: Floats,
    binding: npt.NDArray[np.int8],
    stake: Floats,
    exposure: Floats,
) -> Path:
    """What became of one account that staked `stake`, float64[n], in units of its first equity per R."""
    r = net_r(multiplier, table.gross_r, table.cost_r, table.impact_r)
    by_exit = np.argsort(table.exit_time, kind="stable")
    equity = [1.0]
    for profit in (stake * r)[by_exit]:
        equity.append(max(equity[-1] + profit, LEAST_EQUITY))
    return Path(
        name=name,
        multiplier=multiplier,
        binding=binding,
        utility=table.utility_of(multiplier, slice(None), realised=True),
        expected=table.utility_of(multiplier, slice(None), realised=False),
        net_r=multiplier * r,
        time=np.concatenate([table.time[:1], table.exit_time[by_exit]]),
        equity=np.array(equity),
        exposure=exposure,
    )
