"""The observation of a sizing policy, composed once for training, evaluation and serving.

Knows nothing of where its parts come from. docs/observation.md gives each field's window and source.
"""

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from envs.account import NANOSECONDS_PER_DAY
from envs.guardrails import (
    DAILY_RISK,
    DRAWDOWN,
    EXPOSURE,
    LARGEST_SIZE,
    AnyAccount,
    AnyLimits,
    account_columns,
    as_rows,
)

Floats = npt.NDArray[np.float64]

OBSERVATION_FIELDS: Final = (
    "trend_strength",
    "volatility_regime",
    "momentum_score",
    "signal_confidence",
    "entry_quality",
    "risk_reward_ratio",
    "current_exposure_pct",
    "win_rate_recent",
    "drawdown_pct",
    "max_position_pct",
    "remaining_daily_risk",
    "session_left",
)
MARKET_COLUMNS: Final = (
    0,
    1,
    2,
    3,
    4,
    5,
    7,
)  # known from the signal stream alone; the others move with the account
CAP_COLUMN: Final = OBSERVATION_FIELDS.index("max_position_pct")


@dataclass(frozen=True)
class Situation:
    """All that a policy may look at, for N accounts with one pending signal each."""

    observation: npt.NDArray[np.float32]  # [N, 12]
    mask: npt.NDArray[np.bool_]  # [N, 6], legal tiers
    cap: Floats  # [N], largest allowed multiplier
    probability: Floats  # [N, J], the outcome model's p over bins of R
    outcome_r: Floats  # [J], gross R of each bin
    cost_r: Floats  # [N], fixed costs in R
    impact_r: Floats  # [N], size-dependent slippage at 1x in R
    volatility_ratio: Floats  # [N], atr_ratio over its training median
    settled_kelly: Floats  # [N], Kelly fraction of the last settled signals, NaN while too few
    settled_optimal: Floats  # [N], the fraction that would have compounded them most, NaN while too few
    k: float  # Kelly divisor of the utility
    base_risk: float


def market_observation(
    signal_fields: Floats, confidence: Floats, win_rate: Floats
) -> npt.NDArray[np.float32]:
    """The observation with the account's five columns still zero: float32[n, 12].

    `signal_fields`: float64[n, 6] of signals.fields; `confidence`: float64[n], calibrated probability of a
    win, which takes the place of the rule's own confidence; `win_rate`: float64[n], recent share of winners
    among settled signals.
    """
    rows = np.zeros((len(signal_fields), len(OBSERVATION_FIELDS)), dtype=np.float32)
    rows[:, :3] = signal_fields[:, :3]
    rows[:, 3] = confidence
    rows[:, 4:6] = signal_fields[:, 4:6]
    rows[:, 7] = win_rate
    return rows


def observe(
    market: npt.NDArray[np.float32],
    account: AnyAccount,
    cap: Floats,
    limits: AnyLimits,
    session_left: npt.ArrayLike,
) -> npt.NDArray[np.float32]:
    """The full observation, float32[N, 12]: `market` rows of `market_observation` with the account's columns
    filled.
    """
    rows = market.copy()
    rows[:, CAP_COLUMN] = cap / LARGEST_SIZE
    rows[:, -1] = session_left
    _observe(rows, account_columns(account), as_rows(limits))
    return rows


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _observe(rows: npt.NDArray[np.float32], accounts: Floats, limits: Floats) -> None:
    """Fill in the account's shares of its limits."""
    for i in range(len(rows)):
        own = limits[i % len(limits)]
        own_account = accounts[:, i % accounts.shape[1]]
        equity, peak, open_risk, used = own_account[0], own_account[1], own_account[2], own_account[3]
        drawdown = 1.0 - equity / np.maximum(peak, equity)
        rows[i, 6] = _share(_used_up(open_risk, own[EXPOSURE]))
        rows[i, 8] = _share(drawdown / own[DRAWDOWN])
        rows[i, 10] = _share(1.0 - _used_up(used, own[DAILY_RISK]))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _used_up(used: float, limit: float) -> float:
    """Used over limit; a limit of zero counts as used up."""
    return used / limit if limit > 0.0 else 1.0


@numba.njit(cache=True, nogil=True)
def _share(value: float) -> float:
    """`value` held within [0, 1]; NaN stays NaN."""
    if np.isnan(value):
        return value
    return min(value, 1.0) if value >= 0.0 else 0.0


def session_left(elapsed: npt.ArrayLike, days: float) -> Floats:
    """Share of a session of `days` still to come, in [0, 1], `elapsed` ns after its start."""
    left = 1.0 - np.asarray(elapsed, dtype=np.float64) / (days * NANOSECONDS_PER_DAY)
    return np.asarray(np.minimum(np.maximum(left, 0.0), 1.0))


def review_window(
    time: npt.NDArray[np.int64], days: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The operator's review window at each `time` (ns since 1970), and the ns since it began.

    Windows of `days`, the length of a training session, follow one another from 1970-01-01T00:00Z on, so that
    every backtest, replica and replay sees the same clock.
    """
    number, elapsed = np.divmod(time, int(days * NANOSECONDS_PER_DAY))
    return number, elapsed
