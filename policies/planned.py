"""The plug-in that plans ahead: what a size earns, less what the room it takes up would have earned later.

Knows nothing of learning. Declares: e, the share of the exposure limit in use; u, the share of the daily
budget spent; h, the value of standing at e and u relative to an idle account, in R; G nodes on each axis.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from envs.account import NANOSECONDS_PER_DAY
from envs.guardrails import LARGEST_SIZE, SIZES, Limits
from envs.observation import OBSERVATION_FIELDS, Situation
from envs.signal_table import SignalTable
from market.compiled import compiled
from policies.baselines import PlugIn, best_legal

Floats = npt.NDArray[np.float64]

EXPOSURE: Final = OBSERVATION_FIELDS.index("current_exposure_pct")
BUDGET: Final = OBSERVATION_FIELDS.index("remaining_daily_risk")
NODES: Final = 25  # quarter units of the default limits
ROUNDS: Final = 500
TOLERANCE: Final = 1e-6  # of h, in R


@dataclass(frozen=True)
class PlannedPlugIn:
    """The plug-in plus a dynamic programme over the ledger's exposure and daily budget: see `planned`."""

    later: Floats  # [G, G], h by e and u, as it stands once a size is chosen
    exposure_step: Floats  # [6], the share of the exposure limit that each size takes
    budget_step: Floats  # [6], the same of the daily budget
    name: str = "plug-in + DP"
    snaps: bool = True
    plug_in: PlugIn = field(default_factory=PlugIn)

    def values(self, situation: Situation) -> Floats:
        """See `ValuePolicy.values`: the utility, and what is still to come relative to an idle account."""
        used = situation.observation[:, [EXPOSURE, BUDGET]].astype(np.float64)
        exposure = used[:, :1] + self.exposure_step
        budget = 1.0 - used[:, 1:] + self.budget_step
        return self.plug_in.values(situation) + _between(self.later, exposure, budget)

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        return best_legal(self.values(situation), situation.mask)


def planned(train: SignalTable, limits: Limits) -> PlannedPlugIn:
    """The plan for signals that come as those of `train` did, whose expected utilities count as their worth.

    Relative value iteration (Puterman 1994, ch. 8.5) on the mean utility per signal. Between two signals the
    same share of what is open is settled, and the same share of nights passes, as in `train` on average; a
    signal's utilities are drawn from its rows alike. The drawdown limit is not planned for.
    """
    exposure_step = _share(SIZES * limits.base_risk, limits.max_exposure)
    budget_step = _share(SIZES * limits.base_risk, limits.max_daily_risk)
    possible = min(limits.rule_cap, LARGEST_SIZE, limits.max_position / limits.base_risk + 1e-9) >= SIZES
    if not limits.allow_skip and possible[1]:
        possible[0] = False
    settled, nights = _pace(train)
    axis = np.linspace(0.0, 1.0, NODES)
    after = axis[:, None, None] + exposure_step, axis[None, :, None] + budget_step
    legal = possible & (after[0] <= 1.0 + 1e-9) & (after[1] <= 1.0 + 1e-9)
    legal[~legal.any(axis=2), 0] = True
    value = np.zeros((NODES, NODES))
    later = value
    for _ in range(ROUNDS):
        kept = axis * (1.0 - settled)
        next_day = _between(value, kept, np.zeros(NODES))
        same_day = _between(value, np.broadcast_to(kept[:, None], value.shape), axis[None, :])
        later = nights * next_day[:, None] + (1.0 - nights) * same_day
        gained = _best(train.expected, _between(later, *after), legal)
        change = gained - gained[0, 0] - value
        value = value + change
        if np.abs(change).max() < TOLERANCE:
            break
    return PlannedPlugIn(later, exposure_step, budget_step)


def _share(risk: Floats, limit: float) -> Floats:
    return risk / limit if limit > 0.0 else np.where(risk > 0.0, 2.0, 0.0)


def _pace(train: SignalTable) -> tuple[float, float]:
    """Of what is open after a signal, the share that is settled by the next; and nights per signal."""
    n = len(train)
    if n < 2:
        return 1.0, 1.0
    started = np.arange(1, n)
    over = np.searchsorted(np.sort(train.exit_time), train.time, side="right")
    was_open = started - over[:-1]
    still_open = started - over[1:]
    settled = 1.0 - still_open.sum() / max(was_open.sum(), 1)
    return float(settled), float(np.mean(np.diff(train.time // NANOSECONDS_PER_DAY) > 0))


def _between(values: Floats, exposure: Floats, budget: Floats) -> Floats:
    """`values` [G, G] at shares of both axes, on straight lines between nodes and as at the end beyond it."""
    shape = np.broadcast_shapes(exposure.shape, budget.shape)
    last = len(values) - 1
    parts = []
    for share in (exposure, budget):
        position = np.clip(np.broadcast_to(share, shape), 0.0, 1.0) * last
        low = np.minimum(position.astype(np.int64), last - 1)
        parts.append((low, position - low))
    (i, x), (j, y) = parts
    upper = (1.0 - y) * values[i, j] + y * values[i, j + 1]
    lower = (1.0 - y) * values[i + 1, j] + y * values[i + 1, j + 1]
    return np.asarray((1.0 - x) * upper + x * lower)


@compiled()
def _best(utility: Floats, later: Floats, legal: npt.NDArray[np.bool_]) -> Floats:
    """The mean over signals of the best legal size's worth at each node: float64[G, G]."""
    value = np.zeros(later.shape[:2])
    for e in range(len(later)):
        for u in range(later.shape[1]):
            for row in range(len(utility)):
                best = -np.inf
                for tier in range(utility.shape[1]):
                    if legal[e, u, tier]:
                        best = max(best, utility[row, tier] + later[e, u, tier])
                value[e, u] += best
    return value / len(utility)
