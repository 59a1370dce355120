"""How sure a mean difference or a drawdown is, judged by resampling the days it comes from.

Knows nothing of policies. Declares: d, a difference per signal; r, net R of a signal times its size; b, base
risk; D, the number of UTC days with a signal.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from arch.bootstrap import StationaryBootstrap, optimal_block_length

from envs.rewards import RUIN

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEVEL: Final = 0.95
LEAST_DAYS: Final = 20  # with fewer, resampled days say nothing of the days that were not seen


def interval(
    d: Floats, days: Integers, replications: int, seed: int, weights: Floats | None = None
) -> tuple[float, float] | tuple[None, None]:
    """The 95 % percentile interval of the mean of d float64[n]; None, None with fewer than 20 days.

    Signals of one day share its news and the account's daily budget, so they are drawn together: `days`
    int64[n] says which. With `weights` float64[n] >= 0 it is that of the weighted mean, weights drawn too.
    """
    means = _means(d, days, replications, seed, weights)
    if means is None:
        return None, None
    low, high = np.quantile(means, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    return float(low), float(high)


def lower_bound(d: Floats, days: Integers, replications: int, seed: int) -> float | None:
    """The one-sided 95 % lower bound of the mean of d; see `interval`."""
    means = _means(d, days, replications, seed)
    return None if means is None else float(np.quantile(means, 1.0 - LEVEL))


def _means(
    d: Floats, days: Integers, replications: int, seed: int, weights: Floats | None = None
) -> Floats | None:
    weight = np.ones(len(d)) if weights is None else weights
    _, of_day = np.unique(days, return_inverse=True)
    totals, sums = _by_day(weight * d, of_day), _by_day(weight, of_day)
    news = totals - np.average(d, weights=weight) * sums  # busy days are not news in themselves
    draws = resampled_days(news, replications, seed)
    if draws is None:
        return None
    drawn = sums[draws].sum(axis=1)
    weighty = drawn > 0.0  # days that all weigh nothing have no mean
    return np.asarray(totals[draws].sum(axis=1)[weighty] / drawn[weighty])


def drawdown_p95(r: Floats, days: Integers, base_risk: float, replications: int, seed: int) -> float | None:
    """95th percentile of the max drawdown of histories made of resampled days; None with fewer than 20 days.

    A history compounds ``1 + b r`` over the signals of its days and is looked at after each day: trades that
    overlap count one after the other, and the limits do not act again.
    """
    _, of_day = np.unique(days, return_inverse=True)
    growth = _by_day(np.log(np.maximum(1.0 + base_risk * r, RUIN)), of_day)
    draws = resampled_days(growth, replications, seed)
    if draws is None:
        return None
    wealth = np.pad(np.cumsum(growth[draws], axis=1), ((0, 0), (1, 0)))
    losses = 1.0 - np.exp(wealth - np.maximum.accumulate(wealth, axis=1))
    return float(np.quantile(losses.max(axis=1), 0.95))


def resampled_days(totals: Floats, replications: int, seed: int) -> Integers | None:
    """Rows of resampled days, int64[replications, D], from daily totals float64[D]; None with few days.

    Stationary bootstrap (Politis and Romano 1994) in blocks of `block_length`.
    """
    block = block_length(totals)
    if block is None:
        return None
    bootstrap = StationaryBootstrap(block, np.arange(len(totals)), seed=np.random.default_rng(seed))
    return np.stack(
        [np.asarray(sample[0][0], dtype=np.int64) for sample in bootstrap.bootstrap(replications)]
    )


def block_length(totals: Floats) -> int | None:
    """Days in a row that belong together, from daily totals float64[D]; None with fewer than 20 days.

    Mean block length of Politis and White 2004 as corrected by Patton, Politis and White 2009, rounded.
    """
    if len(totals) < LEAST_DAYS:
        return None
    length = float(optimal_block_length(totals)["stationary"].iloc[0]) if np.ptp(totals) > 0.0 else 1.0
    return round(min(max(length, 1.0), len(totals)))


def _by_day(values: Floats, of_day: npt.NDArray[np.intp]) -> Floats:
    return np.asarray(np.bincount(of_day, weights=values), dtype=np.float64)
