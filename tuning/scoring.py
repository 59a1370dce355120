"""How good a network is on a signal table: its greedy policy walked through every signal once.

Knows nothing of training; evaluation/ has the comparison that counts.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from envs.guardrails import Limits, floor_to_tier
from envs.signal_table import SignalTable
from envs.sizing_env import Episodes, Session
from policies.hybrid import FineTunedPolicy, Network


class Walk(NamedTuple):
    """What a greedy policy does with n signals."""

    expected: npt.NDArray[np.float64]  # [n], utility expected under the outcome model, in R
    tier: npt.NDArray[np.int64]  # [n], after the guardrail


def greedy_score(network: Network, table: SignalTable, limits: Limits, session: Session) -> float:
    """Mean utility per signal, expected under the outcome model, in R; see `greedy_walk`."""
    return float(greedy_walk(network, table, limits, session).expected.mean())


def greedy_walk(network: Network, table: SignalTable, limits: Limits, session: Session) -> Walk:
    """The table is cut into sessions end to end, each walked by an account that starts at equity 1 and its
    peak.
    """
    accounts = _sessions(replace(table, reward=table.expected), limits, session)
    walk = Walk(np.zeros(len(table)), np.zeros(len(table), dtype=np.int64))
    while not accounts.over.all():
        values = network(accounts.look())
        live, rows = ~accounts.over, accounts.row.copy()
        reward = accounts.act(np.argmax(np.where(accounts.mask, values, -np.inf), axis=1))
        walk.expected[rows[live]] = reward[live]
        walk.tier[rows[live]] = floor_to_tier(accounts.multiplier[live])
    return walk


def fine_tuned_score(policy: FineTunedPolicy, table: SignalTable, limits: Limits, session: Session) -> float:
    """`greedy_score` of tiers with their fine-tune."""
    accounts = _sessions(table, limits, session)
    total = 0.0
    while not accounts.over.all():
        sizes = policy.choose(accounts.look(), accounts.mask)
        total += float(accounts.act_size(sizes, realised=False).sum())
    return total / len(table)


def _sessions(table: SignalTable, limits: Limits, session: Session) -> Episodes:
    """One account at the start of each session, the sessions following each other without overlap."""
    window_end = Episodes(table, limits, 1, session).window_end
    first = [0]
    while window_end[first[-1]] < len(table):
        first.append(int(window_end[first[-1]]))
    rows: npt.NDArray[np.int64] = np.array(first, dtype=np.int64)
    accounts = Episodes(table, limits, len(rows), session)
    accounts.start(np.ones(len(rows), dtype=np.bool_), rows, np.zeros(len(rows)))
    return accounts
