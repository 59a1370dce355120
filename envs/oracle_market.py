"""A synthetic signal stream whose outcome law is known exactly, so that the best possible sizing is known
too.

Declares: z, the volatility regime (0 calm, 1 normal, 2 turbulent); rr, the reward-to-risk ratio of a signal.
Knows nothing of learning: a policy that claims skill is scored against the optimum here. Momentum changes its
sign with the regime, so that no policy linear in the fields comes near.
"""

from dataclasses import replace
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from envs.account import NANOSECONDS_PER_DAY
from envs.guardrails import Limits
from envs.observation import OBSERVATION_FIELDS
from envs.signal_table import RewardName, SignalTable, signal_table
from envs.sizing_env import Session
from market.errors import ConfigError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

Task = Literal["L1", "L2", "L3"]


class Setting(NamedTuple):
    """What makes a task of the stream."""

    k: float
    limits: Limits
    session: Session


OPEN: Final = Limits(max_position=1.0, max_exposure=1.0, max_daily_risk=1.0, max_drawdown=0.999)
K: Final = 11.0  # makes 1x the optimum of the median good signal at edge 1 and a base risk of 1 %
SETTINGS: Final[dict[Task, Setting]] = {
    # Myopic: no limit ever binds, every signal is a problem of its own.
    "L1": Setting(K, OPEN, Session(days=5.0, reset_drawdown=0.0)),
    # A daily budget of 2.5 base positions for six signals: what is spent now is missing later.
    "L2": Setting(
        K,
        OPEN.model_copy(update={"max_daily_risk": 0.025}),
        Session(days=1.0, reset_drawdown=0.0, whole_days=True),
    ),
    # A drawdown limit over sixty signals: a loss now takes away size later (Grossman and Zhou 1993). No trade
    # loses more than 1.09 R, costs included, so that a gap factor of 1.1 keeps the limit without waste.
    "L3": Setting(
        1.0,
        OPEN.model_copy(update={"base_risk": 0.02, "max_drawdown": 0.1, "gap_factor": 1.1}),
        Session(days=10.0),
    ),
}
SIGNALS_PER_DAY: Final = 6
FIRST_DAY: Final = 1_577_836_800 * 10**9  # 2020-01-01 UTC; any day will do
REGIMES: Final = 3
REGIME_STAYS: Final = 0.9
BASE_LOG_ODDS: Final[Floats] = np.array([0.42, 0.20, 0.02])  # by regime, at edge 1
MOMENTUM_SLOPE: Final[Floats] = np.array([0.4, 0.0, -0.4])  # by regime, at edge 1
CONFIDENCE: Final = OBSERVATION_FIELDS.index("signal_confidence")


def market(task: Task, signals: int, edge: float, seed: int, reward: RewardName = "expected") -> SignalTable:
    """`signals` rows with their exact outcome law: `probability` float64[n, 2] of loss and win, `outcome_r`
    float64[n, 2].

    ``logit p = -ln rr + edge (eta[z] + 0.8 (confidence - 0.5) + 0.6 (quality - 0.5) + beta[z] momentum)``; a
    win pays rr, a loss costs 1, both less 0.03 + 0.06 volatility in costs. The regime is a Markov chain,
    observed through volatility_regime; the observation holds the raw confidence, not p. The same seed gives
    the same stream, whatever the task. Raises ConfigError for no signals, and as `of_fields`.
    """
    if signals < 1:
        raise ConfigError("signals", signals, "give at least 1")
    random = np.random.default_rng(seed)
    regime = regimes(signals, random)
    volatility = (regime + random.random(signals)) / 3.0
    trend = np.clip(1.0 - volatility + random.normal(0.0, 0.15, signals), 0.0, 1.0)
    momentum = random.uniform(-1.0, 1.0, signals)
    confidence, quality = random.random(signals), random.random(signals)
    rr = random.uniform(1.0, 3.0, signals)
    fields = np.stack([trend, volatility, momentum, confidence, quality, rr - 2.0], axis=1)
    return of_fields(task, fields, edge, random.random(signals), reward)


def of_fields(
    task: Task, fields: Floats, edge: float, luck: Floats, reward: RewardName = "expected"
) -> SignalTable:
    """The table of signals with the given `fields`, float64[n, 6] of signals.fields, six to a day.

    A signal wins where its `luck`, float64[n] in [0, 1), is below its probability. Raises ConfigError for an
    unknown task and for an edge that is not finite.
    """
    if task not in get_args(Task):
        raise ConfigError("task", task, f"choose one of {', '.join(get_args(Task))}")
    if not np.isfinite(edge):
        raise ConfigError("edge", edge, "give a finite number; 1 is realistic noise, 0 is no skill to find")
    signals = len(fields)
    volatility, momentum, confidence, quality = fields[:, 1], fields[:, 2], fields[:, 3], fields[:, 4]
    rr, regime = fields[:, 5] + 2.0, regime_of(volatility)
    score = (
        BASE_LOG_ODDS[regime]
        + 0.8 * (confidence - 0.5)
        + 0.6 * (quality - 0.5)
        + MOMENTUM_SLOPE[regime] * momentum
    )
    win = 1.0 / (1.0 + rr * np.exp(-edge * score))
    time = FIRST_DAY + np.arange(signals) * (NANOSECONDS_PER_DAY // SIGNALS_PER_DAY)
    table = signal_table(
        time=time,
        exit_time=time + NANOSECONDS_PER_DAY // SIGNALS_PER_DAY // 2,  # settled before the next signal
        symbol=np.zeros(signals, dtype=np.int32),
        signal_fields=fields,
        gross_r=np.where(luck < win, rr, -1.0),
        cost_r=0.03 + 0.06 * volatility,
        impact_r=np.zeros(signals),
        probability=np.stack([1.0 - win, win], axis=1),
        outcome_r=np.stack([np.full(signals, -1.0), rr], axis=1),
        volatility_ratio=2.0 * volatility,
        out_of_distribution=np.zeros(signals, dtype=np.bool_),
        k=SETTINGS[task].k,
        base_risk=SETTINGS[task].limits.base_risk,
        reward=reward,
        prior_win_rate=0.4,
    )
    observed = table.market.copy()
    observed[:, CONFIDENCE] = confidence  # p itself would give the answer away
    return replace(table, market=observed)


def regimes(signals: int, random: np.random.Generator) -> Integers:
    """A three-state Markov chain, int64[n]: it stays with probability 0.9, or moves to either other state
    alike.
    """
    moves = np.where(random.random(signals) < REGIME_STAYS, 0, random.integers(1, 3, signals))
    moves[0] = random.integers(3)
    return np.asarray(np.cumsum(moves) % 3, dtype=np.int64)


def regime_of(volatility: Floats) -> Integers:
    """The regime behind a volatility_regime, int64[n]: each has a third of [0, 1] to itself."""
    return np.asarray(np.minimum(REGIMES * volatility, REGIMES - 1), dtype=np.int64)


def limits(task: Task) -> Limits:
    """The limits of a task: none that ever binds but the one that makes the task."""
    return SETTINGS[task].limits


def session(task: Task) -> Session:
    """The episode of a task."""
    return SETTINGS[task].session


def session_signals(task: Task) -> int:
    """How many signals an episode of a task holds."""
    return round(SETTINGS[task].session.days * SIGNALS_PER_DAY)


def best_tiers(table: SignalTable) -> Integers:
    """The optimal tier of each signal where no limit binds, int64[n]: the best of six closed forms."""
    return np.asarray(np.argmax(table.expected, axis=1), dtype=np.int64)


def ratio(table: SignalTable, tiers: Integers) -> float:
    """Expected utility of `tiers`, int64[n], over the optimum's: exact given the signals, without the noise
    of outcomes.
    """
    rows = np.arange(len(table))
    return float(table.expected[rows, tiers].sum() / table.expected[rows, best_tiers(table)].sum())
