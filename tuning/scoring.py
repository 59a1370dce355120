"""How good a network is on a signal table: its greedy policy walked through every signal once.

Knows nothing of training; evaluation/ has the comparison that counts.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from envs.guardrails import Limits
from envs.signal_table import SignalTable
from envs.sizing_env import Episodes, Session
from policies.hybrid import FineTunedPolicy, Network


def greedy_score(network: Network, table: SignalTable, limits: Limits, session: Session) -> float:
    """Mean utility per signal, expected under the outcome model, in R.

    The table is cut into sessions end to end, each walked by an account that starts at equity 1 and its peak.
    """
    accounts = _sessions(replace(table, reward=table.expected), limits, session)
    total = 0.0
    while not accounts.over.all():
        values = network(accounts.look())
        total += float(accounts.act(np.argmax(np.where(accounts.mask, values, -np.inf), axis=1)).sum())
    return total / len(table)


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
