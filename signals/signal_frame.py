"""The table a rule hands over, and the one check that turns it into arrays.

Knows nothing of how a signal was found, nor of what became of it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from market.bars import Bars
from market.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

REQUIRED_COLUMNS = ("timestamp", "symbol", "side", "stop", "take_profit")
OPTIONAL_COLUMNS = ("entry", "max_hold", "confidence", "strategy_id")
DEFAULT_MAX_HOLD = 40
DEFAULT_CONFIDENCE = 0.5
LONGEST_HOLD = 1_000_000


@dataclass(frozen=True)
class Signals:
    """Checked signals of one market, n rows in time order; prices in the market's own unit.

    `bar` int64[n] is the row of the bar at whose close the signal is known; `side` int8[n] is +1 or -1;
    `stop`, `take_profit` and `level` (the rule's reference price) are float64[n]; `max_hold` int32[n] counts
    bars; `confidence` float64[n] is in [0, 1].
    """

    bar: IntArray
    side: npt.NDArray[np.int8]
    stop: FloatArray
    take_profit: FloatArray
    level: FloatArray
    max_hold: npt.NDArray[np.int32]
    confidence: FloatArray

    def __len__(self) -> int:
        return len(self.bar)


def signal_frame(
    bars: Bars,
    bar: IntArray,
    side: IntArray,
    stop: FloatArray,
    take_profit: FloatArray,
    entry: FloatArray,
    max_hold: int,
    strategy_id: str,
) -> pd.DataFrame:
    """The table of a rule's signals, rows in the order of `bar` (int64[n], rows of `bars`; the other arrays
    are [n] too).

    A signal whose stop or target cannot be traded (not finite, not above zero, or on the wrong side of the
    close) is left out: very volatile markets give a short target below zero, flat ones a stop at the close
    itself.
    """
    close = bars.close[bar]
    with np.errstate(invalid="ignore"):
        tradable = (
            (side * (close - stop) > 0) & (side * (take_profit - close) > 0) & (stop > 0) & (take_profit > 0)
        )
        tradable &= np.isfinite(stop) & np.isfinite(take_profit) & np.isfinite(entry) & (entry > 0)
    kept = bar[tradable]
    return pd.DataFrame(
        {
            "timestamp": pd.DatetimeIndex(bars.time[kept].view("datetime64[ns]"), tz="UTC"),
            "symbol": pd.Series(bars.symbol, index=range(kept.size), dtype="str"),
            "side": side[tradable].astype(np.int8),
            "stop": stop[tradable],
            "take_profit": take_profit[tradable],
            "entry": entry[tradable],
            "max_hold": np.full(kept.size, max_hold, dtype=np.int32),
            "strategy_id": pd.Series(strategy_id, index=range(kept.size), dtype="str"),
        }
    )


def checked(frame: pd.DataFrame, bars: Bars) -> Signals:
    """The signals of `frame` as arrays on the rows of `bars`.

    Columns: timestamp (timezone-aware, sorted, each the timestamp of a bar), symbol, side (+1 or -1), stop,
    take_profit (on either side of that bar's close, as the side asks) and, where given, entry (the reference
    level; else the close), max_hold (whole bars; else 40), confidence (in [0, 1]; else 0.5), strategy_id.
    Raises DataError naming row, column, value and mend; the row is named by the frame's own index.
    """
    _check_columns(frame)
    bar = _bars_of(frame, bars)
    close = bars.close[bar]
    symbols = frame["symbol"].astype(str).str.upper().to_numpy(dtype=object)
    _require(
        symbols == bars.symbol.upper(), frame, "symbol", f"give only signals of {bars.symbol} with its bars"
    )
    side = _numbers(frame, "side")
    _require((side == 1) | (side == -1), frame, "side", "write 1 for long or -1 for short")
    stop = _prices(frame, "stop")
    _require(
        side * (close - stop) > 0,
        frame,
        "stop",
        "put the stop below the signal bar's close for a long, above for a short",
    )
    take_profit = _prices(frame, "take_profit")
    _require(
        side * (take_profit - close) > 0,
        frame,
        "take_profit",
        "put the target above the signal bar's close for a long, below for a short",
    )
    level = _prices(frame, "entry") if "entry" in frame else close.copy()
    max_hold = np.full(len(frame), DEFAULT_MAX_HOLD, dtype=np.float64)
    if "max_hold" in frame:
        max_hold = _numbers(frame, "max_hold")
        whole = (max_hold >= 1) & (max_hold <= LONGEST_HOLD) & (max_hold == np.round(max_hold))
        _require(whole, frame, "max_hold", f"give a whole number of bars from 1 to {LONGEST_HOLD}")
    confidence = np.full(len(frame), DEFAULT_CONFIDENCE)
    if "confidence" in frame:
        confidence = _numbers(frame, "confidence")
        _require((confidence >= 0) & (confidence <= 1), frame, "confidence", "give a share from 0 to 1")
    return Signals(
        bar=bar,
        side=side.astype(np.int8),
        stop=stop,
        take_profit=take_profit,
        level=level,
        max_hold=max_hold.astype(np.int32),
        confidence=confidence,
    )


def row_name(frame: pd.DataFrame, row: int, column: str) -> str:
    """How an error names a cell: by the frame's own index (a CSV import counts lines of the file)."""
    return f"{frame.index.name or 'row'} {frame.index[row]}, column {column}"


def _check_columns(frame: pd.DataFrame) -> None:
    names: Sequence[Hashable] = list(frame.columns)
    for column in REQUIRED_COLUMNS:
        if column not in names:
            raise DataError(
                "signal columns", names, f"add the column {column}; needed are {', '.join(REQUIRED_COLUMNS)}"
            )
    for name in names:
        if name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS:
            raise DataError(
                "signal columns", name, f"leave it out; optional are {', '.join(OPTIONAL_COLUMNS)}"
            )
    if len(set(names)) < len(names):
        raise DataError("signal columns", names, "name every column once")


def _bars_of(frame: pd.DataFrame, bars: Bars) -> IntArray:
    """The row in `bars` of each signal's timestamp, int64[n]; sorted, each present, none twice for one
    strategy."""
    stamps = frame["timestamp"]
    if not isinstance(stamps.dtype, pd.DatetimeTZDtype):
        value = stamps.iloc[0] if len(stamps) else stamps.dtype
        raise DataError(
            "column timestamp", value, "give timezone-aware timestamps, such as 2017-03-01T14:00:00Z"
        )
    _require(~stamps.isna().to_numpy(dtype=bool), frame, "timestamp", "give every signal a timestamp")
    time = stamps.dt.tz_convert("UTC").dt.as_unit("ns").to_numpy(dtype="datetime64[ns]").astype(np.int64)
    ordered = np.concatenate(([True], time[1:] >= time[:-1]))[: len(time)]
    _require(ordered, frame, "timestamp", "sort the signals by time")
    strategy = (
        frame["strategy_id"].astype(str) if "strategy_id" in frame else pd.Series("", index=frame.index)
    )
    repeated = pd.DataFrame({"time": time, "strategy": strategy.to_numpy()}).duplicated().to_numpy(dtype=bool)
    _require(~repeated, frame, "timestamp", "give one signal per bar and strategy_id")
    row: IntArray = np.searchsorted(bars.time, time).astype(np.int64)
    found = row < len(bars)
    found[found] = bars.time[row[found]] == time[found]
    _require(found, frame, "timestamp", f"use the timestamp of a bar of {bars.symbol}")
    return row


def _numbers(frame: pd.DataFrame, column: str) -> FloatArray:
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    _require(np.isfinite(values), frame, column, "give a finite number")
    return np.array(values, dtype=np.float64)


def _prices(frame: pd.DataFrame, column: str) -> FloatArray:
    values = _numbers(frame, column)
    _require(values > 0, frame, column, "give a price above zero")
    return values


def _require(good: npt.NDArray[np.bool_], frame: pd.DataFrame, column: str, mend: str) -> None:
    if not np.all(good):
        _refuse(frame, int(np.argmin(good)), column, mend)


def _refuse(frame: pd.DataFrame, row: int, column: str, mend: str) -> NoReturn:
    value = frame[column].iloc[row]
    raise DataError(
        row_name(frame, row, column), value.item() if isinstance(value, np.generic) else value, mend
    )
