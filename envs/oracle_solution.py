"""The best possible sizing of the oracle market, limits included, by dynamic programming.

Declares: z, the regime; M, signals that stand for the law of all signals; T, signals in an episode; G, nodes
of the account's one number that matters, the share of the daily budget left (L2) or of the drawdown limit
used up (L3). Log utility needs no wealth (Hakansson 1971), and what is legal comes from the guardrail itself.
Knows nothing of learning; given a fitted outcome model in place of the true law, the same programme is the
plug-in that plans ahead.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from envs.guardrails import SIZES, Account, Limits, allowed, cap
from envs.observation import OBSERVATION_FIELDS, Situation
from envs.oracle_market import (
    REGIME_STAYS,
    REGIMES,
    SETTINGS,
    Task,
    of_fields,
    regime_of,
    session_signals,
)
from envs.rewards import expected_table
from envs.signal_table import SignalTable
from market.compiled import compiled

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DRAWDOWN: Final = OBSERVATION_FIELDS.index("drawdown_pct")
BUDGET: Final = OBSERVATION_FIELDS.index("remaining_daily_risk")
LEFT: Final = OBSERVATION_FIELDS.index("session_left")
DRAWDOWN_NODES: Final = 81
MOVES: Final[Floats] = np.full((REGIMES, REGIMES), (1.0 - REGIME_STAYS) / (REGIMES - 1))
np.fill_diagonal(MOVES, REGIME_STAYS)
MOVES.setflags(write=False)


@dataclass(frozen=True)
class Plan:
    """What each size of a signal is worth, the signals still to come included. It is a `policies` Policy."""

    task: Task
    later: Floats  # [T, 3, G], what follows in z once 0 to T - 1 more signals come, by node
    value: float  # utility per signal in R, from a fresh account in the long run of the regimes
    name: str = "oracle"
    snaps: bool = True

    def values(self, situation: Situation) -> Floats:
        """Utility to the end of the episode, float64[N, 6], legal or not, under the situation's own
        probabilities.
        """
        worth = expected_table(
            situation.probability,
            situation.outcome_r,
            situation.cost_r,
            situation.impact_r,
            situation.k,
            situation.base_risk,
        )
        # float32 holds a count of some sixty, and a share of a limit to 1e-7, well enough
        left = np.rint(situation.observation[:, LEFT].astype(np.float64) * len(self.later)).astype(np.int64)
        share = situation.observation[:, BUDGET if self.task == "L2" else DRAWDOWN].astype(np.float64)
        regime = regime_of(situation.volatility_ratio / 2.0)
        net = np.broadcast_to(situation.outcome_r, situation.probability.shape) - situation.cost_r[:, None]
        _add_later(
            worth,
            self.later[np.clip(left, 1, len(self.later)) - 1, regime],
            share,
            situation.probability,
            net,
            *_motion(self.task),
        )
        return worth

    def size(self, situation: Situation) -> Floats:
        """The size of the best legal tier, float64[N]."""
        best = np.argmax(np.where(situation.mask, self.values(situation), -np.inf), axis=1)
        return np.asarray(SIZES[best])


def oracle(task: Task, edge: float, nodes: int = DRAWDOWN_NODES, fineness: int = 9) -> Plan:
    """The optimum of a task. `nodes`: of the drawdown's grid; ``2**fineness`` signals stand for each regime.

    The daily budget needs no grid of its own: all sizes are quarters of the base position.
    """
    return solve(task, typical_signals(task, edge, fineness), MOVES, nodes=nodes)


def typical_signals(task: Task, edge: float, fineness: int) -> SignalTable:
    """``2**fineness`` signals of each regime, spread evenly over the law of all signals (Sobol 1967)."""
    from scipy.stats.qmc import Sobol  # slow to import, and needed only here

    even = Sobol(5, scramble=False).random_base2(fineness) + 0.5 / 2**fineness
    fields = [
        np.stack(
            [
                np.zeros(len(even)),  # the trend says nothing of the outcome
                (regime + even[:, 0]) / REGIMES,
                2.0 * even[:, 1] - 1.0,
                even[:, 2],
                even[:, 3],
                2.0 * even[:, 4] - 1.0,
            ],
            axis=1,
        )
        for regime in range(REGIMES)
    ]
    return of_fields(task, np.concatenate(fields), edge, luck=np.zeros(REGIMES * len(even)))


def solve(
    task: Task,
    signals: SignalTable,
    moves: Floats,
    *,
    nodes: int = DRAWDOWN_NODES,
    horizon: int | None = None,
    name: str = "oracle",
) -> Plan:
    """The plan that is best where each coming signal is one of `signals`, M rows, drawn alike from those of
    its regime, and the regime moves by `moves`, float64[3, 3], row to column.

    `horizon`: signals in an episode, the task's own if absent.
    """
    limits = SETTINGS[task].limits
    shares, account = _grid(task, limits, nodes)
    legal = allowed(cap(account, limits)[0], limits)
    regime = regime_of(signals.volatility_ratio / 2.0)
    net = np.broadcast_to(signals.outcome_r, signals.probability.shape) - signals.cost_r[:, None]
    horizon = horizon or session_signals(task)
    later = np.zeros((horizon, REGIMES, len(shares)))
    value = np.zeros((REGIMES, len(shares)))
    for left in range(horizon):
        later[left] = moves @ value
        value = _one_back(
            later[left], signals.expected, signals.probability, net, regime, shares, legal, *_motion(task)
        )
    fresh = -1 if task == "L2" else 0
    return Plan(task, later, float(_long_run(moves) @ value[:, fresh]) / horizon, name)


def counted_moves(regime: Integers) -> Floats:
    """How often the regime of a stream, int64[n], moved from each to each: float64[3, 3], rows summing to
    1.
    """
    counts = np.ones((REGIMES, REGIMES))  # a move not seen yet is not impossible
    np.add.at(counts, (regime[:-1], regime[1:]), 1.0)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _long_run(moves: Floats) -> Floats:
    return np.asarray(np.linalg.matrix_power(moves, 1_000)[0])


def _grid(task: Task, limits: Limits, nodes: int) -> tuple[Floats, Account]:
    """The nodes, float64[G], evenly over [0, 1], and accounts that stand there."""
    if task == "L1":
        return np.zeros(1), Account(1.0, 1.0, 0.0, 0.0)
    if task == "L2":
        shares = np.linspace(0.0, 1.0, 1 + round(limits.max_daily_risk / (SIZES[1] * limits.base_risk)))
        return shares, Account(1.0, 1.0, 0.0, (1.0 - shares) * limits.max_daily_risk)
    shares = np.linspace(0.0, 1.0, nodes)
    return shares, Account(1.0 - shares * limits.max_drawdown, np.ones(nodes), 0.0, 0.0)


Motion = tuple[bool, float, float]


def _motion(task: Task) -> Motion:
    """How the share moves: whether by what is risked or by what is lost, at which base risk, of which
    limit.
    """
    limits = SETTINGS[task].limits
    return task == "L2", limits.base_risk, limits.max_daily_risk if task == "L2" else limits.max_drawdown


@compiled()
def _after(
    later: Floats,
    share: float,
    size: float,
    probability: Floats,
    net: Floats,
    budget: bool,
    base_risk: float,
    limit: float,
) -> float:
    """Expected worth of where `size` leads from `share`; between two nodes it lies on a straight line."""
    last = len(later) - 1
    worth = 0.0
    for outcome in range(len(net)):
        if budget:
            ends = share - size * base_risk / limit
        else:
            ends = (1.0 - (1.0 - share * limit) * (1.0 + size * base_risk * net[outcome])) / limit
        position = min(max(ends, 0.0), 1.0) * last
        low = min(int(position), last)
        high = min(low + 1, last)
        worth += probability[outcome] * (later[low] + (position - low) * (later[high] - later[low]))
    return worth


@compiled()
def _one_back(
    later: Floats,
    utility: Floats,
    probability: Floats,
    net: Floats,
    regime: Integers,
    shares: Floats,
    legal: Bools,
    budget: bool,
    base_risk: float,
    limit: float,
) -> Floats:
    """The value of one signal more, float64[3, G]: the mean over its regime's signals of the best legal
    size.
    """
    value = np.zeros(later.shape)
    count = np.zeros(len(later))
    for i in range(len(regime)):
        z = regime[i]
        count[z] += 1.0
        for node in range(len(shares)):
            best = -np.inf
            for tier in range(len(SIZES)):
                if legal[node, tier]:
                    worth = utility[i, tier] + _after(
                        later[z],
                        shares[node],
                        SIZES[tier],
                        probability[i],
                        net[i],
                        budget,
                        base_risk,
                        limit,
                    )
                    best = max(best, worth)
            value[z, node] += best
    for z in range(len(later)):
        value[z] /= max(count[z], 1.0)
    return value


@compiled()
def _add_later(
    worth: Floats,
    later: Floats,
    share: Floats,
    probability: Floats,
    net: Floats,
    budget: bool,
    base_risk: float,
    limit: float,
) -> None:
    """Add to `worth`, float64[N, 6], what each size leaves to come; `later` float64[N, G]."""
    for i in range(len(worth)):
        for tier in range(len(SIZES)):
            worth[i, tier] += _after(
                later[i], share[i], SIZES[tier], probability[i], net[i], budget, base_risk, limit
            )
