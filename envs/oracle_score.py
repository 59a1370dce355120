"""What a sizer earns on the oracle market: exact given the signals, without the noise of outcomes.

Every sizer meets the same signals with the same outcomes in the same episodes (common random numbers),
through the guardrail and ledger of training. Knows nothing of how a sizer came to be.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from envs.guardrails import bound
from envs.observation import Situation
from envs.oracle_market import Task, limits, session, session_signals
from envs.signal_table import SignalTable
from envs.sizing_env import Episodes

Floats = npt.NDArray[np.float64]
Sizer = Callable[[Situation], Floats]  # proposed multipliers, float64[N], of N situations: `Policy.size`


class Walk(NamedTuple):
    """What a sizer did with n signals, in their order."""

    multiplier: Floats  # [n], after the guardrail
    expected: Floats  # [n], utility in R that was to be expected of it
    realised: Floats  # [n], utility in R that came of it


def walk(sizer: Sizer, task: Task, table: SignalTable, *, snap: bool = True) -> Walk:
    """Size every signal of `table`, cut into episodes end to end, each with a fresh account.

    `snap`: whether sizes are tiers, as `Policy.snaps` says. A sizer on observations and masks alone is
    ``lambda situation: f(situation.observation, situation.mask)``. The last signals take no part where they
    fill no episode.
    """
    length = session_signals(task)
    first = np.arange(0, len(table) - length + 1, length)
    episodes = Episodes(table, limits(task), len(first), session(task))
    episodes.start(np.ones(len(first), dtype=np.bool_), first, np.zeros(len(first)))
    multiplier = np.zeros((len(first), length))
    for step in range(length):
        observation, rows = episodes.look(), episodes.row
        situation = table.situation(rows, observation, episodes.mask, episodes.cap)
        guarded = bound(sizer(situation), episodes.cap, episodes.cap_rule, limits(task), snap=snap)
        episodes.place(guarded.multiplier)
        multiplier[:, step] = guarded.multiplier
    return _earned(multiplier.ravel(), table)


def _earned(multiplier: Floats, table: SignalTable) -> Walk:
    rows = slice(len(multiplier))
    return Walk(
        multiplier,
        table.utility_of(multiplier, rows, realised=False),
        table.utility_of(multiplier, rows, realised=True),
    )
