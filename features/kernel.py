"""The kernel's face for arrays: columns in, 31 features per bar out, refusals in words. Knows nothing of
frames or files."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
from numba.np import linalg
from numpy.typing import ArrayLike, NDArray

from features import step as compiled
from features.step import FEATURES, LARGEST, PEAKS, SHARE, SIZE, SMALLEST, TROUGHS, step
from market.errors import DataError

COLUMNS = ("open", "high", "low", "close", "volume")
FloatArray = NDArray[np.float64]
TimeArray = NDArray[np.int64]


def _load_numba_without_scipy() -> None:
    """Spare the first call of `step` a quarter of a cold start.

    numba's array functions import scipy.linalg as they load, only to learn whether it is there; compiled
    linear algebra looks again where it is used.
    """
    look, linalg.ensure_blas = linalg.ensure_blas, lambda: None
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = look


_load_numba_without_scipy()


def new_state() -> FloatArray:
    """The state before the first bar: float64[SIZE]."""
    state = np.zeros(SIZE)
    state[PEAKS + SHARE] = state[TROUGHS + SHARE] = (
        0.5  # neither rising nor falling until there are two swings
    )
    return state


def feed(
    state: FloatArray,
    time: ArrayLike,
    open: ArrayLike,
    high: ArrayLike,
    low: ArrayLike,
    close: ArrayLike,
    volume: ArrayLike,
    symbol: str = "bars",
) -> FloatArray:
    """Feed n bars (one value per bar and column; `time` int64 ns, UTC) to `state`: rows float64[n, 31].

    Raises DataError with row, column and value where a bar breaks the contract; the state is then as before.
    """
    stamps: TimeArray = _column(symbol, "timestamp", time, np.int64)
    given = zip(COLUMNS, (open, high, low, close, volume), strict=True)
    columns: list[FloatArray] = [_column(symbol, name, values, np.float64) for name, values in given]
    for name, column in zip(COLUMNS, columns, strict=True):
        if column.shape != stamps.shape:
            raise DataError(
                f"{symbol} column {name}", column.size, f"give {stamps.size} values, one per timestamp"
            )
    rows = np.empty((stamps.size, FEATURES))
    fault = step(state, stamps, columns[0], columns[1], columns[2], columns[3], columns[4], rows)
    if fault >= 0:
        raise refusal(symbol, fault, stamps, *columns)
    return rows


def compute(
    time: ArrayLike, open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, volume: ArrayLike
) -> FloatArray:
    """The features of n bars from the first on: float64[n, 31], rows 0 to 99 NaN. Input and errors as for
    `feed`."""
    return feed(new_state(), time, open, high, low, close, volume)


def refusal(symbol: str, fault: int, time: TimeArray, *columns: FloatArray, first: int = 0) -> DataError:
    """The error for what `step` returned on these columns: row (counted from `first`), column, value and
    mend."""
    row, column = divmod(int(fault), 8)
    if column == 0:
        mend = "timestamps must strictly increase: sort the rows, drop repeated ones"
        return DataError(
            f"{symbol} row {first + row}, column timestamp", str(np.datetime64(int(time[row]), "ns")), mend
        )
    name = COLUMNS[column - 1]
    bar = ", ".join(f"{label} {values[row]}" for label, values in zip(COLUMNS, columns, strict=True))
    mend = {
        "high": f"must be a number from {SMALLEST} to {LARGEST}, not below open or close",
        "low": f"must be a number from {SMALLEST} to {LARGEST}, not above open or close",
        "volume": f"must be a number from 0 to {LARGEST}",
    }.get(name, f"must be a number from {SMALLEST} to {LARGEST}")
    value = float(columns[column - 1][row])
    return DataError(f"{symbol} row {first + row}, column {name}", value, f"{mend} ({bar})")


def warm() -> None:
    """Compile `step` for the only types it is ever called with, and leave it in numba's cache: run once at
    install."""
    compute([0], [1.0], [1.0], [1.0], [1.0], [0.0])


def interpreted() -> Callable[..., int]:
    """`step` and all it calls as plain Python, from the same source: some thousand times slower, the same
    bits."""
    namespace = dict(vars(compiled))
    for name, function in vars(compiled).items():
        if hasattr(function, "py_func"):
            namespace[name] = FunctionType(function.py_func.__code__, namespace)
    plain: Callable[..., int] = namespace["step"]
    return plain


def _column(symbol: str, name: str, values: ArrayLike, kind: type[np.int64] | type[np.float64]) -> Any:
    """The values as a contiguous read-only array of one dimension: one type, so `step` is compiled only
    once."""
    given = np.asarray(values)
    if given.dtype.kind == "M":
        given = given.astype("datetime64[ns]").view(np.int64)
    if given.ndim != 1 or given.dtype.kind not in ("iu" if kind is np.int64 else "iuf"):
        wanted = "int64 nanoseconds since the epoch" if kind is np.int64 else "numbers"
        raise DataError(f"{symbol} column {name}", f"{given.dtype} {given.shape}", f"give a list of {wanted}")
    column = np.ascontiguousarray(given, dtype=kind).view()
    column.flags.writeable = False
    return column
