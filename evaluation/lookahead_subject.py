"""What a look-ahead analysis can take apart: a rule, a feature or a name becomes tables that can be compared.

Knows nothing of cuts or other futures.
"""

import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES
from market.bars import Bars, iso
from market.errors import ConfigError, DataError, first_line
from signals.rules import Rule, SignalFile, checked, rule, rule_names

Integers: TypeAlias = npt.NDArray[np.int64]
Feature: TypeAlias = Callable[[Bars], Any]
Kind: TypeAlias = Literal["rule", "feature"]

BUILT_IN = "features"  # the subject that is the pipeline of 31
ROW = "(signal)"  # what is said to move where a whole signal comes or goes


class Subject(NamedTuple):
    """What is analysed. `run` gives the table of its values, copied, indexed by time (int64 ns; of a rule
    also by strategy and occurrence); `check` refuses signals that cannot be traded.
    """

    name: str
    kind: Kind
    run: Callable[[Bars], pd.DataFrame]
    check: Callable[[Bars], object]


class Move(NamedTuple):
    """The first row of a column that differs between two tables."""

    column: str
    time: int
    before: Any
    after: Any


def subject_of(given: Rule | Feature | str) -> Subject:
    """The subject behind a rule, a function or a name; ConfigError where there is none."""
    if isinstance(given, str):
        return _named(given)
    if isinstance(given, SignalFile):
        raise ConfigError("subject", given.name, "a file's signals are not computed from bars: give the rule")
    if inspect.isclass(given):
        raise ConfigError("subject", given.__name__, "give an instance of the class")
    if isinstance(given, Rule):
        return _of_rule(given)
    if callable(given):
        return _of_feature(getattr(given, "__name__", type(given).__name__), given)
    raise ConfigError("subject", given, "give a rule, a function of bars, or a name")


def times(table: pd.DataFrame) -> Integers:
    """The time of each row of a subject's table, int64[n] ns."""
    return table.index.get_level_values(0).to_numpy(dtype=np.int64)


def moves(before: pd.DataFrame, after: pd.DataFrame) -> list[Move]:
    """The earliest difference of each column between two tables of one subject; rows are matched by key."""
    found = []
    if not before.index.equals(after.index):
        lost, added = ~before.index.isin(after.index), ~after.index.isin(before.index)
        ends = [(int(times(before)[lost].min()), "present", "none")] if lost.any() else []
        ends += [(int(times(after)[added].min()), "none", "present")] if added.any() else []
        found += [Move(ROW, *end) for end in sorted(ends)[:1]]
        common = before.index.intersection(after.index)
        before, after = before.loc[common], after.loc[common]
    for name in dict.fromkeys([*before.columns, *after.columns]):
        both = name in before.columns and name in after.columns
        moved = differ(before[name], after[name]) if both else np.ones(len(before), dtype=np.bool_)
        if moved.any():
            row = int(np.argmax(moved))
            values = [t[name].iloc[row] if name in t.columns else "no such column" for t in (before, after)]
            found.append(Move(name, int(times(before)[row]), *values))
    return found


def differ(left: pd.Series, right: pd.Series) -> npt.NDArray[np.bool_]:
    """Where two columns of n values are not the same, bit for bit; all missing values are the same."""
    one, other = left.to_numpy(), right.to_numpy()
    if one.dtype.kind == other.dtype.kind == "f":
        # As integers, because -0.0 equals 0.0 and the two divide differently.
        bits = [np.asarray(values, dtype=np.float64).view(np.int64) for values in (one, other)]
        return np.asarray((bits[0] != bits[1]) & ~(np.isnan(one) & np.isnan(other)))
    if one.dtype.kind in "iub" and other.dtype.kind in "iub":
        return np.asarray(one != other)
    pairs = zip(left.astype(object), right.astype(object), strict=True)
    return np.array([not _same(*pair) for pair in pairs], dtype=np.bool_)


def _same(one: Any, other: Any) -> bool:
    if _missing(one) or _missing(other):
        return _missing(one) and _missing(other)
    return one is other or bool(one == other)


def _missing(value: Any) -> bool:
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return value is None or value is pd.NaT or value is pd.NA


def _named(text: str) -> Subject:
    if text == BUILT_IN:
        pipeline = FeaturePipeline()
        names = list(FEATURE_NAMES)
        return _of_feature(text, lambda bars: pd.DataFrame(pipeline.matrix(bars), columns=names))
    if text.startswith("plugin:"):
        module, _, name = text.removeprefix("plugin:").partition("?")[0].partition(":")
        try:
            loaded = getattr(importlib.import_module(module), name)
        except Exception as error:  # whatever the user's module raises while it is imported
            seen = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError("subject", text, f"write plugin:MODULE:NAME that imports ({seen})") from error
        if not inspect.isclass(loaded) and not isinstance(loaded, Rule):
            if not callable(loaded):
                raise ConfigError("subject", text, "name a rule's class or a function of bars")
            return _of_feature(text, loaded)
    elif not text.startswith("csv:") and text.partition("?")[0] not in rule_names():
        known = f"{BUILT_IN}, a rule ({', '.join(rule_names())}) or plugin:MODULE:NAME"
        raise ConfigError("subject", text, f"give {known}")
    return subject_of(rule(text))


def _of_rule(given: Rule) -> Subject:
    name = f"rule {given.name}"

    def run(bars: Bars) -> pd.DataFrame:
        table = _told(name, given.generate, bars)
        if not isinstance(table, pd.DataFrame):
            raise DataError(name, type(table).__name__, "generate(bars) must give a pandas frame of signals")
        if not len(table):
            return pd.DataFrame(index=_keys(np.empty(0, np.int64), pd.Series(dtype=str)))
        stamps = table["timestamp"] if "timestamp" in table else pd.Series(dtype=float)
        if not isinstance(stamps.dtype, pd.DatetimeTZDtype) or stamps.isna().any():
            mend = "every signal needs a timezone-aware timestamp"
            raise DataError(f"{name} column timestamp", str(stamps.dtype), mend)
        time = stamps.dt.tz_convert("UTC").dt.as_unit("ns").astype(np.int64).to_numpy()
        strategy = table["strategy_id"] if "strategy_id" in table else pd.Series("", index=table.index)
        values = table.drop(columns=["timestamp", "strategy_id"], errors="ignore")
        return values.set_axis(_keys(time, strategy)).sort_index()

    return Subject(given.name, "rule", run, lambda bars: checked(given.generate(bars), bars))


def _keys(time: Integers, strategy: pd.Series) -> pd.MultiIndex:
    """The keys of signals: their time, strategy, and number among those with both the same."""
    keys = pd.DataFrame({"time": time, "strategy": strategy.astype(str).to_numpy()})
    keys["occurrence"] = keys.groupby(["time", "strategy"]).cumcount()
    return pd.MultiIndex.from_frame(keys)


def _of_feature(name: str, given: Feature) -> Subject:
    def run(bars: Bars) -> pd.DataFrame:
        told = _told(f"feature {name}", given, bars)
        table = _aligned(f"feature {name}", told, bars)
        if not table.columns.is_unique:
            raise DataError(f"feature {name} columns", list(table.columns), "name every column once")
        return table.set_axis(pd.Index(bars.time)).rename(columns=str)

    return Subject(name, "feature", run, lambda bars: None)


def _told(name: str, given: Feature, bars: Bars) -> Any:
    """What the user's code says of these bars; DataError that names it where it raises."""
    try:
        return given(bars)
    except Exception as error:  # any: it is the user's code
        seen = f"{type(error).__name__}: {first_line(error)}"
        mend = f"it failed on {len(bars)} bars of {bars.symbol} up to {iso(int(bars.time[-1]))}"
        raise DataError(name, seen, mend) from error


def _aligned(name: str, told: Any, bars: Bars) -> pd.DataFrame:
    """A feature's values as a frame of its own with a row for each bar."""
    if isinstance(told, pd.Series):
        told = told.to_frame("value" if told.name is None else str(told.name))
    if not isinstance(told, pd.DataFrame):
        try:
            array = np.asarray(told)
        except ValueError as error:
            raise DataError(name, type(told).__name__, f"give a value for each bar ({error})") from None
        if array.ndim not in (1, 2):
            seen = f"an array of shape {array.shape}" if array.ndim else type(told).__name__
            raise DataError(
                name, seen, f"give {len(bars)} values, an array [{len(bars)}, columns] or a frame"
            )
        names = ["value"] if array.ndim == 1 else [f"column {n}" for n in range(array.shape[1])]
        told = pd.DataFrame(array.reshape(len(array), len(names)), columns=names)
    if len(told) != len(bars):
        raise DataError(name, f"{len(told)} rows", f"give {len(bars)}, one for each bar of {bars.symbol}")
    if isinstance(told.index, pd.DatetimeIndex):
        index = told.index if told.index.tz is not None else told.index.tz_localize("UTC")
        in_order = np.array_equal(index.as_unit("ns").asi8, bars.time)
    else:
        in_order = told.index.equals(pd.RangeIndex(len(bars)))
    if not in_order:
        raise DataError(f"{name} index", str(told.index[:3].tolist()), "give rows in the order of the bars")
    table: pd.DataFrame = told.copy()  # the user's code may write its own again
    return table
