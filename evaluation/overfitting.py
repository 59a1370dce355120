"""Whether the best of many trials is more than luck: what a search's own figures are worth.

Knows nothing of how trials were made. Declares: d, per-signal differences of utility to a reference in R, of
n signals, float64[n, trials] or of one trial float64[n]; D, the number of UTC days with a signal. Signals of
one day share its news, so days are what is drawn, split and counted: `days` int64[n] says which.
"""

from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
from arch.bootstrap import SPA, optimal_block_length

from evaluation.resampling import LEAST_DAYS
from market.errors import DataError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BLOCKS: Final = 16  # of CSCV: 12,870 ways to learn from one half and be tested on the other
LEAST_DAYS_IN_BLOCK: Final = 5


def spa_p_value(d: Floats, days: Integers, seed: int, replications: int = 1_000) -> float | None:
    """The p-value of "no trial is better than the reference", d float64[n, trials]; all trials count at once.

    Hansen's (2005) test of superior predictive ability, the consistent version, over whole days drawn by the
    stationary bootstrap (`arch`). Each trial's daily totals are divided by their standard deviation first:
    the largest t-value is tested, not the largest mean, as Hansen advises. Blocks have the mean length that
    suits the trials (Politis and White 2004). None with fewer than 20 days, and where no trial ever differs
    from one day to the next. DataError for d that is not finite or has other rows than `days`.
    """
    totals, _ = _daily(d, days)
    spread = totals.std(axis=0)
    totals, spread = totals[:, spread > 0.0], spread[spread > 0.0]
    if len(totals) < LEAST_DAYS or not len(spread):
        return None
    lengths = optimal_block_length(totals)["stationary"].to_numpy()
    block = round(float(np.clip(np.mean(lengths), 1.0, len(totals) / 2)))
    test = SPA(np.zeros(len(totals)), -totals / spread, block_size=block, reps=replications, seed=seed)
    test.compute()
    beaten = float(test.pvalues["consistent"]) * replications
    return (1.0 + beaten) / (1.0 + replications)  # no p-value of a resampling is zero (Davison, Hinkley 1997)


def backtest_overfitting(d: Floats, days: Integers) -> float | None:
    """PBO: the probability that the trial that looks best does no better than the reference elsewhere.

    CSCV (Bailey, Borwein, Lopez de Prado and Zhu 2017): time is cut into 16 blocks of days; the trial with
    the highest mean on any 8 of them is judged on the other 8, in all 12,870 ways. The paper counts how often
    it ranks below the median trial there; that is near one half for a search whose trials are all equally
    good. Counted here is how often its mean is at or below zero, the reference's. None for a single trial,
    and with fewer than 5 days in a block (80 in all). DataError as `spa_p_value`.
    """
    totals, counts = _daily(d, days)
    if totals.shape[1] < 2 or len(totals) < BLOCKS * LEAST_DAYS_IN_BLOCK:
        return None
    parts = np.array_split(np.arange(len(totals)), BLOCKS)
    sums = np.stack([totals[part].sum(axis=0) for part in parts])
    sizes = np.array([counts[part].sum() for part in parts])
    learned = np.zeros((len(SPLITS), BLOCKS))
    np.put_along_axis(learned, SPLITS, 1.0, axis=1)
    inside = learned @ sums / (learned @ sizes)[:, None]
    outside = (1.0 - learned) @ sums
    chosen = np.argmax(inside, axis=1)
    return float(np.mean(outside[np.arange(len(chosen)), chosen] <= 0.0))


SPLITS: Final = np.array(list(combinations(range(BLOCKS), BLOCKS // 2)))


def probabilistic_sharpe(d: Floats, days: Integers, benchmark: float = 0.0) -> float | None:
    """PSR: the probability that the true Sharpe ratio of one trial's daily differences exceeds `benchmark`.

    d float64[n]; the ratio is mean over standard deviation of a day's total, not annualised, with skew and
    kurtosis counted (Bailey and Lopez de Prado 2012; `skfolio`). Days count as independent. None with fewer
    than 20 days, and where the ratio or its error is undefined.
    """
    from skfolio.measures import probabilistic_sharpe_ratio  # slow to import, and needed only here

    totals, _ = _daily(d[:, None], days)
    if len(totals) < LEAST_DAYS or not np.ptp(totals) > 0.0:
        return None
    chance = float(probabilistic_sharpe_ratio(totals[:, 0], benchmark_sharpe_ratio=benchmark))
    return chance if np.isfinite(chance) else None


def deflated_sharpe(d: Floats, days: Integers, selected: int, tried: float) -> float | None:
    """DSR: `probabilistic_sharpe` of the column `selected` against the best ratio that `tried` trials without
    skill would show.

    d float64[n, trials]; their ratios' spread sets that best (Bailey and Lopez de Prado 2014; `skfolio`).
    `tried` is the true number of trials, those that left no column included; `effective_trials` of them is
    the mild reading. Trials of truly different skill spread too, and are taken for luck: to report, not to
    gate on. None as for `probabilistic_sharpe`. DataError for fewer trials tried than there are columns.
    """
    from skfolio.measures import expected_max_sharpe_ratio

    totals, _ = _daily(d, days)
    if len(totals) < LEAST_DAYS:
        return None
    spread = totals.std(axis=0, ddof=1)
    ratios = totals.mean(axis=0)[spread > 0.0] / spread[spread > 0.0]
    deviation = float(ratios.std(ddof=1)) if len(ratios) > 1 else 0.0
    return probabilistic_sharpe(d[:, selected], days, expected_max_sharpe_ratio(max(tried, 1.0), deviation))


def effective_trials(d: Floats, days: Integers, tried: int) -> float | None:
    """How many independent trials the `tried` ones amount to: ``r + (1 - r) tried``, r the mean correlation
    of the columns' daily totals, at least 0 (Bailey and Lopez de Prado 2014, appendix A.3).

    None with fewer than 20 days or two columns that ever differ from one day to the next.
    """
    totals, _ = _daily(d, days)
    totals = totals[:, totals.std(axis=0) > 0.0]
    if len(totals) < LEAST_DAYS or totals.shape[1] < 2:
        return None
    correlation = np.asarray(np.corrcoef(totals, rowvar=False))
    mean = float(np.mean(correlation[np.triu_indices(len(correlation), 1)]))
    shared = max(mean, 0.0)
    return shared + (1.0 - shared) * tried


def _daily(d: Floats, days: Integers) -> tuple[Floats, Integers]:
    """Totals of each day in time order, float64[D, trials], and how many signals it had, int64[D]."""
    if d.ndim != 2 or days.shape != d.shape[:1]:
        raise DataError("d", (d.shape, days.shape), "give [signals, trials], and a day for each signal")
    if not np.isfinite(d).all():
        column = int(np.argmin(np.isfinite(d).all(axis=0)))
        raise DataError("d", f"no number in trial {column}", "give a finite difference for every signal")
    _, of_day, counts = np.unique(days, return_inverse=True, return_counts=True)
    totals = np.zeros((len(counts), d.shape[1]))
    np.add.at(totals, of_day, d)
    return totals, counts
