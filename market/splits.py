"""Splits by time that leave no trade on both sides of a cut. Knows nothing of prices, models or markets.

A trade is known at its `signal_time` and open until its `exit_time` (int64 nanoseconds, n values each, in any
order, markets pooled). A training trade whose time overlaps the tested time is dropped ("purged": Lopez de
Prado, "Advances in Financial Machine Learning", 2018, chapter 7), so that no outcome is learned from prices
of the test. All functions return int64 row numbers in ascending order, and never divide equal signal times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from market.errors import ConfigError, DataError

Times = NDArray[np.int64]
Rows = NDArray[np.int64]


class TimeSplit(NamedTuple):
    """Row numbers to fit on, to choose by, and to test with once."""

    train: Rows
    select: Rows
    test: Rows


def time_split(
    signal_time: Times, exit_time: Times, fractions: Sequence[float] = (0.6, 0.2, 0.2)
) -> TimeSplit:
    """Cut all trades at two moments, so that about these fractions of them lie before, between and after.

    Train and select trades that are still open at the first signal of the next part are dropped.
    `ConfigError` for fractions that are not three positive numbers of sum 1, `DataError` where a part would
    be empty.
    """
    signal, exits = _trades(signal_time, exit_time)
    parts = np.asarray(fractions, dtype=np.float64)
    if parts.shape != (3,) or not (parts > 0).all() or abs(parts.sum() - 1.0) > 1e-9:
        raise ConfigError("fractions", tuple(fractions), "give three positive numbers of sum 1")
    first, second = _cuts(signal, np.cumsum(parts)[:2])
    train = np.flatnonzero((signal < first) & (exits < first))
    select = np.flatnonzero((signal >= first) & (signal < second) & (exits < second))
    split = TimeSplit(train, select, np.flatnonzero(signal >= second))
    for name, rows in split._asdict().items():
        _some(rows, name, len(signal))
    return split


def walk_forward(
    signal_time: Times, exit_time: Times, folds: int = 5, first_train: float = 0.4
) -> list[tuple[Rows, Rows]]:
    """(train, test) per fold: training begins with the first trade and grows, tests follow one another.

    The first `first_train` share of the trades is never tested; the rest is cut into `folds` tests of about
    equal size. Training trades still open at the test's first signal are dropped. `ConfigError` unless
    folds >= 1 and 0 < first_train < 1, `DataError` where a part would be empty.
    """
    signal, exits = _trades(signal_time, exit_time)
    if folds < 1:
        raise ConfigError("folds", folds, "give at least 1")
    if not 0.0 < first_train < 1.0:
        raise ConfigError("first_train", first_train, "give a share above 0 and below 1")
    shares = first_train + (1.0 - first_train) * np.arange(folds) / folds
    starts = _cuts(signal, shares)
    found = []
    for fold, start in enumerate(starts):
        tested = signal >= start
        if fold + 1 < folds:
            tested &= signal < starts[fold + 1]
        train = np.flatnonzero((signal < start) & (exits < start))
        test = np.flatnonzero(tested)
        _some(train, f"training part of fold {fold}", len(signal))
        _some(test, f"test part of fold {fold}", len(signal))
        found.append((train, test))
    return found


def purged_folds(
    signal_time: Times, exit_time: Times, folds: int = 5, embargo: int = 0
) -> list[tuple[Rows, Rows]]:
    """(train, test) per fold of a blocked K-fold: each trade is tested once, trained on before and after it.

    A training trade is dropped if it is open at any moment from the test's first signal to its last exit, or
    if its signal comes within `embargo` nanoseconds after that exit (what follows a test still resembles it).
    `ConfigError` unless folds >= 2 and embargo >= 0, `DataError` where a part would be empty.
    """
    signal, exits = _trades(signal_time, exit_time)
    if folds < 2:
        raise ConfigError("folds", folds, "give at least 2")
    if not 0 <= embargo <= np.iinfo(np.int64).max // 2:
        raise ConfigError("embargo", embargo, "give nanoseconds, 0 or more")
    starts = _cuts(signal, np.arange(folds) / folds)
    found = []
    for fold, start in enumerate(starts):
        tested = signal >= start
        if fold + 1 < folds:
            tested &= signal < starts[fold + 1]
        test = np.flatnonzero(tested)
        _some(test, f"test part of fold {fold}", len(signal))
        # Compared as a distance from the last exit: a sum could overflow.
        last_exit = exits[test].max()
        after = (signal > last_exit) & (signal - last_exit > embargo)
        train = np.flatnonzero(~tested & ((exits < start) | after))
        _some(train, f"training part of fold {fold}", len(signal))
        found.append((train, test))
    return found


def _trades(signal_time: Times, exit_time: Times) -> tuple[Times, Times]:
    signal, exits = np.asarray(signal_time), np.asarray(exit_time)
    for name, times in (("signal_time", signal), ("exit_time", exits)):
        if times.ndim != 1 or times.dtype != np.int64 or len(times) != len(signal):
            seen = f"{times.dtype} of shape {times.shape}"
            raise DataError(name, seen, f"give {len(signal)} int64 nanoseconds")
    early = exits < signal
    if early.any():
        row = int(np.argmax(early))
        mend = f"an exit must not precede its signal at {signal[row]}; {np.count_nonzero(early)} rows fail"
        raise DataError(f"trades row {row}, column exit_time", exits[row], mend)
    return signal, exits


def _cuts(signal: Times, shares: NDArray[np.float64]) -> Times:
    """The signal times before which about these shares of the trades lie; strictly increasing."""
    ordered = np.sort(signal)
    # Rounded first: 0.7 + 0.1 lies a hair below 0.8 and must not move a cut by a row.
    places = np.floor(np.round(shares * len(ordered), 6)).astype(np.int64)
    if not len(ordered) or (np.diff(ordered[places]) <= 0).any():
        raise DataError("trades", len(ordered), f"too few different signal times for {len(shares)} cuts")
    return ordered[places]


def _some(rows: Rows, part: str, trades: int) -> None:
    if not len(rows):
        raise DataError(
            part, f"0 of {trades} trades", "give more trades, shorter holding times or fewer parts"
        )
