"""The frame door: a table of OHLCV rows becomes `Bars`, checked by pandera. Knows nothing of its origin.

pandera takes about a second to import, so it is imported where a frame needs its schema and not before.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from market.bars import COLUMNS, RULES, Bars, Column, Rule, check, fault, symbol_name
from market.errors import DataError

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

UNNAMED = "UNNAMED"
_TIME_NAMES = ("timestamp", "datetime", "date", "time")
_WRITE_ISO = "write timestamps as ISO 8601 (2020-01-31T22:00:00Z)"
# Whole numbers are instants since the epoch; their size tells the unit for every date from 1973 on.
_EPOCH_BANDS = (100_000_000, 100_000_000_000, 100_000_000_000_000, 100_000_000_000_000_000)
_EPOCH_NANOSECONDS = (0, 1_000_000_000, 1_000_000, 1_000, 1)  # per unit of each band; none below the first


def one_from_frame(frame: pd.DataFrame, symbol: str | None = None) -> Bars:
    """Bars of one symbol (see `Bars.from_frame`); columns that are numbers already need no pandera."""
    found = bars_from_frame(frame, symbol, coerce=False)
    symbols = [bars.symbol for bars in found]
    if len(found) > 1 or (symbol is not None and symbols != [symbol_name(symbol)]):
        raise DataError("symbol", symbols, f"give the rows of one symbol, {symbol or 'whichever'}")
    return found[0]


def bars_from_frame(
    frame: pd.DataFrame, symbol: str | None = None, *, sort: bool = False, coerce: bool = True
) -> tuple[Bars, ...]:
    """Bars per symbol, in order of first appearance: by the table's `symbol` column, or all of one symbol.

    `symbol` names the bars where the table has no symbol column (else `UNNAMED`). `sort` orders rows by time
    first, for tables that have no order of their own (a database's, a folder's); a file's order is checked
    instead. `coerce=False` skips pandera where every column is numbers already. `DataError` names the first
    failing row, column and value.
    """
    table = _named(frame)
    unnamed = symbol_name(UNNAMED if symbol is None else symbol)
    if not len(frame):
        raise DataError(f"{unnamed} rows", 0, "give at least one bar")
    time = _instants(table["timestamp"], unnamed)
    found = []
    for name, rows in _rows_per_symbol(table, unnamed):
        if sort:
            rows = rows[np.argsort(time[rows], kind="stable")]
        whole = len(rows) == len(frame) and not sort
        part = {column: table[column] if whole else table[column].iloc[rows] for column in COLUMNS}
        columns = _columns(part, name, rows, time[rows], coerce)
        found.append(Bars.from_arrays(name, columns["timestamp"], *(columns[c] for c in COLUMNS)))
    return tuple(found)


def _named(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """The columns that matter by lower-case name, `timestamp` and `volume` always among them."""
    names = [str(name).strip().lower() for name in frame.columns]
    there = ", ".join(map(str, frame.columns)) or "none"
    for name in (*COLUMNS, "symbol", "timestamp"):
        if names.count(name) > 1:
            raise DataError(f"column {name}", "more than one", "column names ignore case: keep one")
    cells = [column for _, column in frame.items()]
    table = {name: column for name, column in zip(names, cells, strict=True) if name in (*COLUMNS, "symbol")}
    if isinstance(frame.index, pd.DatetimeIndex):
        table["timestamp"] = frame.index.to_series()
    else:
        stamps = [name for name in _TIME_NAMES if name in names]
        stamps = ["timestamp"] if "timestamp" in stamps else stamps
        if len(stamps) != 1:
            mend = f"give one timestamp column; the columns are {there}"
            raise DataError("column timestamp", ", ".join(stamps) or "missing", mend)
        table["timestamp"] = cells[names.index(stamps[0])]
    missing = [name for name in ("open", "high", "low", "close") if name not in table]
    if missing:
        raise DataError(f"column {', '.join(missing)}", "missing", f"add it; the columns are {there}")
    if "volume" not in table:
        table["volume"] = pd.Series(np.zeros(len(frame)))
    return table


def _rows_per_symbol(table: dict[str, pd.Series], unnamed: str) -> list[tuple[str, NDArray[np.int64]]]:
    """The row numbers of each symbol, in the order of first appearance."""
    if "symbol" not in table:
        return [(unnamed, np.arange(len(table["timestamp"])))]
    codes, values = pd.factorize(table["symbol"], use_na_sentinel=False)
    names = []
    for code, value in enumerate(values):
        try:
            names.append(symbol_name(value))
        except DataError as error:
            failed, total = codes == code, len(codes)
            row, count = int(np.argmax(failed)), int(np.count_nonzero(failed))
            raise fault("table", "symbol", row, value, error.mend, failed=count, total=total) from None
    # Names that differ only in case are one symbol.
    merged, symbols = pd.factorize(np.array(names, dtype=object))
    return [(str(name), np.flatnonzero(merged[codes] == code)) for code, name in enumerate(symbols)]


def _instants(values: pd.Series, symbol: str) -> NDArray[np.int64]:
    """Nanoseconds since the epoch in UTC; naive instants are taken as UTC."""
    kind = values.dtype.kind
    if kind == "M":
        time, unknown = _from_dates(pd.DatetimeIndex(values))
    elif kind in "iu":
        time, unknown = _from_epoch(values.to_numpy(dtype=np.int64, na_value=0))
    elif kind == "O":
        parsed = pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce")
        time, unknown = _from_dates(pd.DatetimeIndex(parsed))
    else:
        raise DataError(f"{symbol} column timestamp", str(values.dtype), _WRITE_ISO)
    if unknown.any():
        row, count = int(np.argmax(unknown)), int(np.count_nonzero(unknown))
        value = values.iloc[row]
        seen = value if isinstance(value, str | int | np.integer) else str(value)
        raise fault(symbol, "timestamp", row, seen, _WRITE_ISO, failed=count, total=len(values))
    return time


def _from_dates(dates: pd.DatetimeIndex) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Nanoseconds, and where a date is missing or outside the years that nanoseconds reach (1678 to 2261)."""
    unknown = np.asarray(dates.isna())
    try:
        return np.asarray(dates.as_unit("ns").asi8), unknown
    except pd.errors.OutOfBoundsDatetime:
        naive = dates.tz_localize(None)
        unknown |= np.asarray((naive < pd.Timestamp.min) | (naive > pd.Timestamp.max))
        return np.zeros(len(dates), dtype=np.int64), unknown


def _from_epoch(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Nanoseconds from s, ms, µs or ns since the epoch, and where a number is not of the first one's unit."""
    bands = np.digitize(values, _EPOCH_BANDS)
    factor = _EPOCH_NANOSECONDS[int(bands[0])]
    if not factor:
        return values, np.ones(len(values), dtype=bool)
    return values * factor, (bands != bands[0]) | (values > np.iinfo(np.int64).max // factor)


def _columns(
    part: dict[str, pd.Series], symbol: str, rows: NDArray[np.int64], time: NDArray[np.int64], coerce: bool
) -> dict[str, Column]:
    """The columns as arrays, through pandera unless they may go as they are."""
    columns: dict[str, Column] = {"timestamp": time}
    if not coerce and all(isinstance(c.dtype, np.dtype) and c.dtype.kind in "fiu" for c in part.values()):
        return columns | {name: cells.to_numpy() for name, cells in part.items()}
    for name, cells in part.items():
        if cells.dtype.kind in "bcmM":  # a cast to float would take some of these without a word
            raise DataError(f"{symbol} column {name}", str(cells.dtype), "give numbers")
    table = pd.DataFrame({"timestamp": time} | {name: c.reset_index(drop=True) for name, c in part.items()})
    table = _validated(table, symbol, rows)
    return columns | {name: table[name].to_numpy() for name in COLUMNS}


@cache
def schema() -> DataFrameSchema:
    """The rule book for pandera: `timestamp` in ns, the columns, one check of the whole frame per rule."""
    import pandera.pandas as pandera

    def checked(rule: Rule) -> pandera.Check:
        def holds(frame: pd.DataFrame) -> pd.Series:
            columns: dict[str, Column] = {name: frame[name].to_numpy() for name in ("timestamp", *COLUMNS)}
            return pd.Series(rule.holds(columns), index=frame.index)

        # pandera would list every cell of every failing row.
        return pandera.Check(holds, name=rule.name, error=rule.mend, n_failure_cases=1)

    columns = {"timestamp": pandera.Column("int64")}
    columns |= {name: pandera.Column("float64", coerce=True, nullable=True) for name in COLUMNS}
    return pandera.DataFrameSchema(columns, checks=[checked(rule) for rule in RULES])


def _validated(table: pd.DataFrame, symbol: str, rows: NDArray[np.int64]) -> pd.DataFrame:
    """The table with float64 columns; what pandera refuses is the `DataError` of the first failing row."""
    from pandera.errors import SchemaErrors

    try:
        return schema().validate(table, lazy=True)
    except SchemaErrors as error:
        # What is no number becomes NaN, so that the rules find the first bad row among faults of all kinds.
        columns: dict[str, Column] = {"timestamp": table["timestamp"].to_numpy()}
        for name in COLUMNS:
            numbers = pd.to_numeric(table[name], errors="coerce")
            columns[name] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        check(symbol, columns, rows, seen=table)
        case = error.failure_cases.iloc[0]
        raise DataError(
            f"{symbol} column {case['column']}", case["failure_case"], f"fails {case['check']}"
        ) from None
