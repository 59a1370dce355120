"""Validated OHLCV bars of one symbol, the only form of data that goes further. Knows nothing of sources.

`RULES` is the one rule book; every door checks it (`market.frames` through pandera, `Bars.from_arrays` with
NumPy alone, for serving). Nothing is ever sorted, filled or dropped to make data pass. Rows count from 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from market.errors import ConfigError, DataError

Column = NDArray[np.float64] | NDArray[np.int64]
COLUMNS = ("open", "high", "low", "close", "volume")
_NOT_A_TIME = np.iinfo(np.int64).min
_LONGEST_SYMBOL = 64


class Rule(NamedTuple):
    """What every bar must satisfy: `holds` maps the columns (n values each) to bool[n], `mend` words it."""

    name: str
    column: str
    mend: str
    holds: Callable[[Mapping[str, Column]], NDArray[np.bool_]]


def _increasing(columns: Mapping[str, Column]) -> NDArray[np.bool_]:
    time = columns["timestamp"]
    later: NDArray[np.bool_] = time != _NOT_A_TIME
    later[1:] &= time[1:] > time[:-1]
    return later


def _finite(column: str) -> Rule:
    return Rule(f"finite_{column}", column, "must be a finite number", lambda c: np.isfinite(c[column]))


RULES: tuple[Rule, ...] = (
    Rule("increasing", "timestamp", "must strictly increase: sort the rows, drop repeated ones", _increasing),
    *(_finite(column) for column in COLUMNS),
    Rule("positive", "low", "prices must be above 0", lambda c: c["low"] > 0),
    Rule(
        "low",
        "low",
        "must not be above open or close",
        lambda c: c["low"] <= np.minimum(c["open"], c["close"]),
    ),
    Rule(
        "high",
        "high",
        "must not be below open or close",
        lambda c: c["high"] >= np.maximum(c["open"], c["close"]),
    ),
    Rule("volume", "volume", "must not be negative", lambda c: c["volume"] >= 0),
)


def iso(time: int) -> str:
    """Nanoseconds since the epoch as ISO 8601 in UTC."""
    return "no time" if time == _NOT_A_TIME else pd.Timestamp(time, tz="UTC").isoformat()


def check(
    symbol: str,
    columns: Mapping[str, Column],
    rows: NDArray[np.int64] | None = None,
    seen: pd.DataFrame | None = None,
) -> None:
    """Refuse columns that break a rule: `DataError` of the first failing row, with column, value and count.

    `columns` holds `timestamp` (int64 ns) and `COLUMNS` (numbers), n values each; `rows` are the row numbers
    to report where the bars are a part of a larger table, `seen` the cells before they became numbers.
    """
    # NaN and infinity fail comparisons on purpose; NumPy need not warn about them.
    with np.errstate(invalid="ignore"):
        held = [rule.holds(columns) for rule in RULES]
    sound = np.logical_and.reduce(held)
    if sound.all():
        return
    row = int(np.argmin(sound))
    rule = next(rule for rule, holds in zip(RULES, held, strict=True) if not holds[row])
    bar = ", ".join(f"{name} {columns[name][row]!s}" for name in ("open", "high", "low", "close"))
    before = f" (the row before: {iso(int(columns['timestamp'][row - 1]))})" if row else ""
    shown = iso(int(columns["timestamp"][row]))
    cell = columns[rule.column][row] if seen is None else seen[rule.column].iloc[row]
    value = shown if rule.column == "timestamp" else cell
    context = before if rule.column == "timestamp" else f" ({bar})"
    raise fault(
        symbol, rule.column, row if rows is None else int(rows[row]), value, rule.mend + context,
        failed=int(np.count_nonzero(~sound)), total=len(sound), time=shown,
    )  # fmt: skip


def fault(
    symbol: str, column: str, row: int, value: object, mend: str, *, failed: int, total: int, time: str = ""
) -> DataError:
    """The `DataError` of a bad row, worded alike by every door."""
    when = f" ({time})" if time and column != "timestamp" else ""
    count = f"{failed} of {total} rows {'fails' if failed == 1 else 'fail'}"
    return DataError(f"{symbol} row {row}{when}, column {column}", value, f"{mend}; {count}")


def symbol_name(value: object) -> str:
    """The symbol stripped, in upper case; `DataError` unless that is printable text of 1 to 64 characters."""
    if isinstance(value, str):
        name = value.strip().upper()
        if name and name.isprintable() and len(name) <= _LONGEST_SYMBOL:
            return name
    raise DataError("symbol", value, f"give a printable name of 1 to {_LONGEST_SYMBOL} characters")


@dataclass(frozen=True, eq=False)
class Bars:
    """n bars of one symbol, checked on construction, read-only: arrays are copied in and cannot be written.

    `time` is int64 nanoseconds since the epoch in UTC, strictly increasing: the bar's own timestamp, which in
    most sources labels its open. `open`, `high`, `low`, `close` (prices) and `volume` are float64[n]. Compare
    by `digest()`.
    """

    symbol: str
    time: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]

    def __post_init__(self) -> None:
        symbol = symbol_name(self.symbol)
        columns: dict[str, Column] = {"timestamp": _nanoseconds(symbol, self.time)}
        columns |= {name: _numbers(symbol, name, getattr(self, name)) for name in COLUMNS}
        for name, column in columns.items():
            if column.shape != columns["timestamp"].shape:
                mend = f"needs as many values as timestamp, {columns['timestamp'].shape}"
                raise DataError(f"{symbol} column {name}", column.shape, mend)
        if not len(columns["timestamp"]):
            raise DataError(f"{symbol} rows", 0, "give at least one bar")
        check(symbol, columns)
        self._fill(symbol, columns.pop("timestamp"), columns)

    def _fill(self, symbol: str, time: Column, columns: Mapping[str, Column]) -> None:
        object.__setattr__(self, "symbol", symbol)
        for name, column in {"time": time, **columns}.items():
            column.flags.writeable = False
            object.__setattr__(self, name, column)

    @classmethod
    def from_arrays(
        cls,
        symbol: str,
        time: ArrayLike,
        open: ArrayLike,
        high: ArrayLike,
        low: ArrayLike,
        close: ArrayLike,
        volume: ArrayLike | None = None,
    ) -> Self:
        """Bars from n values per column: the fast door, NumPy alone.

        `time` is int64 ns since the epoch (UTC) or datetime64; a missing `volume` means zeros. `DataError`
        names the first failing row, column and value.
        """
        stamps = np.asarray(time)
        traded = np.zeros(stamps.shape) if volume is None else volume
        # The constructor turns whatever is given into the declared arrays.
        return cls(symbol, stamps, open, high, low, close, traded)  # type: ignore[arg-type]

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, symbol: str | None = None) -> Bars:
        """Bars of one symbol from a frame: timestamps (index or column), open, high, low, close [, volume].

        Timestamps are a `DatetimeIndex`, else the column `timestamp` (or the only one of `datetime`, `date`,
        `time`): ISO 8601 or instants; naive ones are UTC. Column names ignore case, a missing volume means
        zeros. The symbol is `symbol`, which must agree with the frame's `symbol` column if there is one, else
        that column's one value, else `UNNAMED`. `DataError` names the first failing row, column and value.
        """
        from market.frames import one_from_frame  # frames build Bars, so they import this module

        return one_from_frame(frame, symbol)

    def frame(self) -> pd.DataFrame:
        """Columns open high low close volume over a UTC `DatetimeIndex` named `timestamp` (unit ns)."""
        index = pd.DatetimeIndex(self.time.view("datetime64[ns]"), tz="UTC", name="timestamp")
        return pd.DataFrame({name: getattr(self, name) for name in COLUMNS}, index=index)

    def __len__(self) -> int:
        return len(self.time)

    def window(self, start: int, stop: int) -> Bars:
        """Rows `start` to `stop - 1`, uncopied; may be none. `ConfigError` unless 0 <= start <= stop <= n."""
        if not 0 <= start <= stop <= len(self):
            mend = f"needs 0 <= start <= stop <= {len(self)}"
            raise ConfigError(f"{self.symbol} window", (start, stop), mend)
        part = object.__new__(Bars)  # rows of checked bars need no second check
        columns = {name: getattr(self, name)[start:stop] for name in COLUMNS}
        part._fill(self.symbol, self.time[start:stop], columns)
        return part

    @property
    def interval(self) -> int:
        """Length of a bar in ns: the median distance of timestamps, so that nights and weekends do not count;
        0 for one bar.

        A bar's values are known at its timestamp plus this.
        """
        return int(np.median(np.diff(self.time))) if len(self) > 1 else 0

    def digest(self) -> str:
        """SHA-256 (hex) of the symbol and every value, the same on every machine."""
        name = self.symbol.encode()
        digest = hashlib.sha256(f"bars-1 {len(name)} {len(self)} ".encode() + name)
        digest.update(self.time.astype("<i8", copy=False).tobytes())
        for column in COLUMNS:
            digest.update(getattr(self, column).astype("<f8", copy=False).tobytes())
        return digest.hexdigest()


def _numbers(symbol: str, name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        seen = f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{symbol} column {name}", seen, "give a row of numbers")
    return np.array(array, dtype=np.float64, order="C")


def _nanoseconds(symbol: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim == 1 and array.dtype.kind == "M":
        # pandas refuses instants that overflow 64-bit nanoseconds; NumPy would wrap around silently.
        try:
            return np.array(pd.DatetimeIndex(array).as_unit("ns").asi8)
        except pd.errors.OutOfBoundsDatetime as error:
            raise DataError(f"{symbol} column timestamp", str(error), "needs years 1678 to 2261") from None
    if array.ndim != 1 or array.dtype != np.int64:
        seen = f"{array.dtype} of shape {array.shape}"
        mend = "give int64 nanoseconds since the epoch, or datetime64"
        raise DataError(f"{symbol} column timestamp", seen, mend)
    return np.array(array, order="C")
