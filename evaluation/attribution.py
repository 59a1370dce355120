"""Sizing skill alone: what the sizes earned beyond one flat size of equal average exposure, same trades.

Knows nothing of how sizes were chosen. R is the planned risk of a 1x position.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from envs.account import NANOSECONDS_PER_DAY
from envs.rewards import net_r
from envs.signal_table import SignalTable
from evaluation.backtest import Path
from evaluation.resampling import block_length, interval

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEAST_RUNS: Final = 8  # of days that change places


@dataclass(frozen=True)
class Attribution:
    """Sized against flat on n signals, skipped ones being sizes of zero."""

    signals: int
    days: int
    flat_size: float  # the mean multiplier, given to every signal
    sized_r: float  # total net R of the sizes
    flat_r: float  # total net R of the flat size
    gained_r: float  # their difference per signal
    low: float | None  # 95 % interval of it by resampled days; None with fewer than 20
    high: float | None
    p_value: float | None  # of "sizes know nothing of outcomes"; None with few days, or one size for all
    run_days: int | None  # days that were kept together when sizes were shuffled


def attribute(path: Path, table: SignalTable, *, replications: int = 2_000, seed: int = 0) -> Attribution:
    """The sizing skill of the backtest `path` of `table`; see `attribution`."""
    return attribution(
        path.multiplier,
        table.gross_r,
        table.cost_r,
        table.impact_r,
        table.time // NANOSECONDS_PER_DAY,
        table.symbol,
        replications=replications,
        seed=seed,
    )


def attribution(
    multiplier: Floats,
    gross_r: Floats,
    cost_r: Floats,
    impact_r: Floats,
    days: Integers,
    symbol: npt.NDArray[np.int32],
    *,
    replications: int = 2_000,
    seed: int = 0,
) -> Attribution:
    """Sized less flat P&L per signal, its interval, and a permutation test of it; all arrays [n], in time
    order.

    The test gives the same sizes to the same trades in another order, `replications` times; the p-value is
    the share of orders that earn at least as much (Good 2005; the order found counts as one). Sizes are not
    shuffled trade by trade: those of one day, and of days in a row, resemble each other, as outcomes do, and
    so would count as more evidence than they are. Runs of days change places as a whole, twice as long as the
    blocks that suit the daily gains (Politis and White 2004), but never fewer than eight runs. And sizes stay
    with their symbol: that a symbol is always sized larger is one choice, not a skill shown n times; it
    counts in `gained_r`, not in the test.
    """
    flat = float(np.mean(multiplier))
    sized = multiplier * net_r(multiplier, gross_r, cost_r, impact_r)
    gained = sized - flat * net_r(flat, gross_r, cost_r, impact_r)
    _, of_day = np.unique(days, return_inverse=True)
    low, high = interval(gained, days, replications, seed)
    daily = np.asarray(np.bincount(of_day, weights=gained), dtype=np.float64)
    suited = block_length(daily)
    run = None if suited is None else max(1, min(2 * suited, len(daily) // LEAST_RUNS))
    symbols = [np.flatnonzero(symbol == one) for one in np.unique(symbol)]
    p_value = None
    if run is not None and any(np.ptp(multiplier[rows]) > 0.0 for rows in symbols):
        random = np.random.default_rng(seed)
        of_run = of_day // run
        reached = 0
        for _ in range(replications):
            place = random.random(of_run.max() + 1)[of_run]
            other = multiplier.copy()
            for rows in symbols:
                other[rows] = multiplier[rows][np.argsort(place[rows], kind="stable")]
            total = np.sum(other * net_r(other, gross_r, cost_r, impact_r))
            reached += bool(total >= np.sum(sized) - 1e-9)
        p_value = (1 + reached) / (1 + replications)
    return Attribution(
        signals=len(multiplier),
        days=int(of_day.max()) + 1,
        flat_size=flat,
        sized_r=float(np.sum(sized)),
        flat_r=float(np.sum(sized - gained)),
        gained_r=float(np.mean(gained)),
        low=low,
        high=high,
        p_value=p_value,
        run_days=run,
    )
