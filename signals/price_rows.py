"""Labelled rows of one or many markets for the price predictor, pooled in the order in which they were known.

Knows nothing of models.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.pipeline import FeaturePipeline
from features.spec import WARMUP
from market.bars import Bars
from market.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FLAT_SHARE = 1.0 / 3.0
EARLY_SHARE = 0.3
FEWEST_ROWS = 1000
# A market's own base rates are measured on this many training rows at least; with fewer, all markets speak.
FEWEST_OWN_ROWS = 100


class Rows(NamedTuple):
    """N labelled bars in the order of `known`.

    `x` float64[N, 31], `y` int64[N] (0 down, 1 flat, 2 up), `market` int64[N] indexes `symbols`; `known` and
    `settled` int64[N] are the moments (ns, UTC) at which the features and the label are known: the closes of
    the bar and of the bar `horizon` later. `thresholds` [markets] are the log returns that part the classes.
    """

    x: FloatArray
    y: IntArray
    market: IntArray
    known: IntArray
    settled: IntArray
    symbols: tuple[str, ...]
    thresholds: tuple[float, ...]


def labelled(markets: Sequence[Bars], horizon: int, threshold: float | None) -> Rows:
    """The rows of `markets`, as `FeaturePipeline.prepare_training_data` labels them.

    `threshold` None gives each market its own: the third of the absolute returns over `horizon` bars that is
    smallest in the first 30 % of its bars counts as flat there. Raises ConfigError for a bad horizon or
    threshold; DataError for no market, one that is there twice, or fewer than 1,000 rows in all.
    """
    symbols = tuple(bars.symbol for bars in markets)
    if not symbols or len(set(symbols)) < len(symbols):
        raise DataError("markets", symbols, "give at least one, each once")
    pipeline = FeaturePipeline()
    thresholds, parts = [], []
    for number, bars in enumerate(markets):
        own = _typical(bars, horizon) if threshold is None else threshold
        table, label = pipeline.prepare_training_data(bars, horizon, own)
        first, last = WARMUP - 1, len(bars) - horizon
        market = np.full(last - first, number, dtype=np.int64)
        known, settled = bars.time[first:last] + bars.interval, bars.time[first + horizon :] + bars.interval
        parts.append(
            (table.to_numpy(dtype=np.float64), label.to_numpy(dtype=np.int64), market, known, settled)
        )
        thresholds.append(float(own))
    x, y, market, known, settled = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if len(y) < FEWEST_ROWS:
        raise DataError("training rows", len(y), f"give at least {FEWEST_ROWS}, from more bars or markets")
    order = np.argsort(known, kind="stable")
    return Rows(x[order], y[order], market[order], known[order], settled[order], symbols, tuple(thresholds))


def log_base_rates(y: IntArray, classes: int) -> FloatArray:
    """Log share of each class, float64[classes]; half a row more in each keeps an unseen class possible."""
    counts = np.bincount(y, minlength=classes) + 0.5
    return np.asarray(np.log(counts / counts.sum()))


def own_base_rates(rows: Rows, train: IntArray, test: IntArray, classes: int) -> FloatArray:
    """Log base rates float64[len(test), classes]: those of the row's own market among the training rows.

    A market with fewer than 100 training rows gets the rates of all.
    """
    pooled = log_base_rates(rows.y[train], classes)
    table = np.tile(pooled, (len(rows.symbols), 1))
    for number in range(len(rows.symbols)):
        own = rows.y[train][rows.market[train] == number]
        if own.size >= FEWEST_OWN_ROWS:
            table[number] = log_base_rates(own, classes)
    return np.asarray(table[rows.market[test]])


def _typical(bars: Bars, horizon: int) -> float:
    early = np.log(bars.close[: max(horizon + 1, int(EARLY_SHARE * len(bars)))])
    if early.size <= horizon or horizon < 1:
        return 0.0  # what is wrong with the horizon, the pipeline says
    return float(np.quantile(np.abs(early[horizon:] - early[:-horizon]), FLAT_SHARE))
