"""Settled trades as one struct of arrays: what happened after each signal, in R.

Knows nothing of how outcomes were found, nor of sizes or accounts. 1 R is the distance
from the signal bar's close to the stop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from features.spec import index as feature_index
from market.errors import DataError
from signals.fields import POOLED, VolatilityRanks, signal_fields

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STOP, TARGET, TIME = 0, 1, 2
REASONS = ("stop", "target", "time")


class Dropped(NamedTuple):
    """Signals that became no trade: too early for features, not resolved before the data end, entry already
    past a barrier."""

    warm_up: int = 0
    unresolved: int = 0
    void: int = 0


@dataclass(frozen=True)
class Trades:
    """Settled outcomes, a struct of arrays with n rows in time order.

    `symbol` int32 indexes `symbols`; `bar` int64 is the signal bar's row in its market. Times are int64 ns
    UTC: `signal_time` and `exit_time` are when signal and outcome are known, the close of their bars
    (timestamp plus the market's bar interval), so that hourly and daily markets can be pooled; `entry_time`
    is the timestamp of the entry bar. `close` (at the signal), `level`, `stop`, `take_profit` and
    `stop_distance` (|close - stop|) are prices. In R: `gross_r`; `cost_r` (fees, spread and slippage at any
    size); `impact_r` (at size 1; net R at size m is gross_r - cost_r - impact_r * sqrt(m)); `mfe_r` >= 0 and
    `mae_r` <= 0, the best and worst excursion from the entry up to the exit. `reason` int8 indexes REASONS;
    `holding` int32 counts bars, the entry bar included. `features` float64[n, 31] is the row of the signal
    bar.
    """

    symbols: tuple[str, ...]
    symbol: npt.NDArray[np.int32]
    bar: IntArray
    signal_time: IntArray
    entry_time: IntArray
    exit_time: IntArray
    side: npt.NDArray[np.int8]
    close: FloatArray
    level: FloatArray
    stop: FloatArray
    take_profit: FloatArray
    confidence: FloatArray
    stop_distance: FloatArray
    gross_r: FloatArray
    cost_r: FloatArray
    impact_r: FloatArray
    mfe_r: FloatArray
    mae_r: FloatArray
    reason: npt.NDArray[np.int8]
    holding: npt.NDArray[np.int32]
    features: FloatArray
    dropped: Dropped = field(default_factory=Dropped)

    def __len__(self) -> int:
        return len(self.bar)

    @property
    def net_r(self) -> FloatArray:
        """R after all costs at size 1, float64[n]."""
        return self.gross_r - self.cost_r - self.impact_r

    def take(self, index: npt.NDArray[np.integer] | npt.NDArray[np.bool_] | slice) -> Self:
        """The rows that `index` selects (integers, booleans or a slice), in its order; `symbols` and
        `dropped` stay."""
        rows = {name: getattr(self, name)[index] for name in ROW_FIELDS}
        return type(self)(symbols=self.symbols, dropped=self.dropped, **rows)


ROW_FIELDS = tuple(name for name in Trades.__dataclass_fields__ if name not in ("symbols", "dropped"))


def pool(parts: Sequence[Trades]) -> Trades:
    """All trades of `parts` in order of signal time (ties: symbol name, then the order given); `dropped` is
    added up.

    Raises DataError for no parts.
    """
    if not parts:
        raise DataError("trades", parts, "give the trades of at least one market")
    symbols = tuple(sorted({name for part in parts for name in part.symbols}))
    numbers = [
        np.array([symbols.index(name) for name in part.symbols], dtype=np.int32)[part.symbol]
        for part in parts
    ]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ROW_FIELDS}
    columns["symbol"] = np.concatenate(numbers)
    order = np.lexsort((columns["symbol"], columns["signal_time"]))
    dropped = Dropped(*(sum(counts) for counts in zip(*(part.dropped for part in parts), strict=True)))
    return Trades(
        symbols=symbols, dropped=dropped, **{name: column[order] for name, column in columns.items()}
    )


def trade_ranks(trades: Trades) -> VolatilityRanks:
    """Volatility quantiles of the signal bars of `trades` (training trades only)."""
    return VolatilityRanks.fit(trades.symbols, trades.symbol, trades.features[:, feature_index("atr_ratio")])


def trade_fields(trades: Trades, ranks: VolatilityRanks) -> FloatArray:
    """SIGNAL_FIELDS of pooled trades, float64[n, 6], row for row."""
    fields = np.empty((len(trades), 6))
    for number, symbol in enumerate(trades.symbols):
        rows = np.flatnonzero(trades.symbol == number)
        part = trades.take(rows)
        prices = (part.close, part.level, part.stop, part.take_profit)
        fields[rows] = signal_fields(symbol, part.features, part.side, *prices, part.confidence, ranks)
    return fields


def volatility_ratio(trades: Trades, medians: Mapping[str, float]) -> FloatArray:
    """atr_ratio over its training median by symbol ("*" for the others), float64[n]."""
    typical = np.array([medians.get(symbol, medians[POOLED]) for symbol in trades.symbols])
    return np.asarray(trades.features[:, feature_index("atr_ratio")] / typical[trades.symbol])
