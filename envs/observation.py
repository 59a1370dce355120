"""The observation of a sizing policy, composed once for training, evaluation and serving.

Knows nothing of where its parts come from. docs/observation.md gives each field's window and source.
"""

from typing import Final, NamedTuple, Self

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
from market.compiled import compiled

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


class Situation(NamedTuple):
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

    def take(self, rows: slice) -> Self:
        """Some of them."""
        return self._replace(**{name: getattr(self, name)[rows] for name in _OF_EACH})


_OF_EACH: Final = set(Situation._fields) - {"outcome_r", "k", "base_risk"}


def market_observation(
    signal_fields: Floats, confidence: Floats, win_rate: Floats
) -> npt.NDArray[np.float32]:
    """The observation with the account's five columns still zero: float32[n, 12].

    `signal_fields`: float64[n, 6] of signals.fields; `confidence`: float64[n], calibrated probability of a
    win, which takes the place of the rule's own confidence; `win_rate`: float64[n], recent share of winners
    among settled signals.
    """
    rows = np.zeros((len(signal_fields), len(OBSERVATION_FIELDS)), dtype=np.float32)
    fill_market_columns(signal_fields, confidence, win_rate, rows)
    return rows


@compiled()
def fill_market_columns(
    signal_fields: Floats, confidence: Floats, win_rate: Floats, rows: npt.NDArray[np.float32]
) -> None:
    """Fill in the market's columns."""
    for i in range(len(rows)):
        for field in range(6):
            rows[i, field] = signal_fields[i, field]
        rows[i, 3], rows[i, 7] = confidence[i], win_rate[i]


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
    left = np.asarray(session_left, dtype=np.float64).reshape(-1)
    fill_account_columns(rows, account_columns(account), as_rows(limits), cap, left)
    return rows


@compiled(error_model="numpy")
def fill_account_columns(
    rows: npt.NDArray[np.float32], accounts: Floats, limits: Floats, cap: Floats, session_left: Floats
) -> None:
    """Fill in the account's columns; of what has fewer rows, they are taken in turn."""
    for i in range(len(rows)):
        own = limits[i % len(limits)]
        own_account = accounts[:, i % accounts.shape[1]]
        equity, peak, open_risk, used = own_account[0], own_account[1], own_account[2], own_account[3]
        drawdown = 1.0 - equity / np.maximum(peak, equity)
        rows[i, 6] = _share(_used_up(open_risk, own[EXPOSURE]))
        rows[i, 8] = _share(drawdown / own[DRAWDOWN])
        rows[i, CAP_COLUMN] = cap[i % len(cap)] / LARGEST_SIZE
        rows[i, 10] = _share(1.0 - _used_up(used, own[DAILY_RISK]))
        rows[i, -1] = session_left[i % len(session_left)]


@compiled(error_model="numpy")
def _used_up(used: float, limit: float) -> float:
    """Used over limit; a limit of zero counts as used up."""
    return used / limit if limit > 0.0 else 1.0


@compiled()
def _share(value: float) -> float:
    """`value` held within [0, 1]; NaN stays NaN."""
    if np.isnan(value):
        return value
    return min(value, 1.0) if value >= 0.0 else 0.0


def session_left(elapsed: npt.ArrayLike, days: float) -> Floats:
    """Share of a session of `days` still to come, in [0, 1], `elapsed` ns after its start."""
    left = np.array(elapsed, dtype=np.float64)
    fill_session_left(left.reshape(-1), days * NANOSECONDS_PER_DAY)
    return left


@compiled(error_model="numpy")
def fill_session_left(elapsed: Floats, whole: float) -> None:
    """Turn what has passed of a session into what is left of it."""
    for i in range(len(elapsed)):
        elapsed[i] = _share(1.0 - elapsed[i] / whole)


def review_left(time: npt.NDArray[np.int64], days: float) -> Floats:
    """`session_left` of the operator's review window at each `time`, float64[N]; see `review_window`."""
    return session_left(time % _nanoseconds(days), days)


def since_review(time: int, days: float) -> int:
    """How long the operator's review window at `time` has lasted, all in ns; see `review_window`."""
    return time % _nanoseconds(days)


def review_window(
    time: npt.NDArray[np.int64], days: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The operator's review window at each `time` (ns since 1970), and the ns since it began.

    Windows of `days`, the length of a training session, follow one another from 1970-01-01T00:00Z on, so that
    every backtest, replica and replay sees the same clock.
    """
    number, elapsed = np.divmod(time, _nanoseconds(days))
    return number, elapsed


def _nanoseconds(days: float) -> int:
    return int(days * NANOSECONDS_PER_DAY)
