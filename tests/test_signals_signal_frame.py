import numpy as np
import pandas as pd
import pytest

from market.errors import DataError
from signals.signal_frame import checked
from tests.jumpy_bars import jumpy_bars

BARS = jumpy_bars(200, seed=8)


def good(**changed: object) -> pd.DataFrame:
    """Three sound signals; `changed` replaces whole columns."""
    row = np.array([50, 60, 61])
    side = np.array([1, -1, 1])
    close = BARS.close[row]
    columns = {
        "timestamp": pd.to_datetime(BARS.time[row], utc=True),
        "symbol": "JUMPY",
        "side": side,
        "stop": close * (1 - 0.02 * side),
        "take_profit": close * (1 + 0.05 * side),
        "entry": close * (1 - 0.001 * side),
        "max_hold": [5, 10, 20],
        "confidence": [0.0, 0.6, 1.0],
        "strategy_id": "mine",
    }
    return pd.DataFrame(columns).assign(**changed)


def test_sound_signals_become_arrays_of_the_stated_types():
    signals = checked(good(), BARS)
    assert signals.bar.tolist() == [50, 60, 61]
    assert (signals.bar.dtype, signals.side.dtype, signals.max_hold.dtype) == (np.int64, np.int8, np.int32)
    assert signals.confidence.tolist() == [0.0, 0.6, 1.0]
    np.testing.assert_allclose(signals.level, good()["entry"])


def test_columns_left_out_get_their_defaults():
    signals = checked(good().drop(columns=["entry", "max_hold", "confidence", "strategy_id"]), BARS)
    np.testing.assert_array_equal(signals.level, BARS.close[signals.bar])
    assert signals.max_hold.tolist() == [40, 40, 40]
    assert signals.confidence.tolist() == [0.5, 0.5, 0.5]


def test_any_time_zone_and_unit_names_the_same_bar():
    there = good()["timestamp"].dt.tz_convert("America/New_York").dt.as_unit("ms")
    assert checked(good(timestamp=there), BARS).bar.tolist() == [50, 60, 61]


close = BARS.close[[50, 60, 61]]
WRONG = {
    "naive time": ({"timestamp": good()["timestamp"].dt.tz_localize(None)}, "timestamp", "timezone-aware"),
    "text time": ({"timestamp": ["2020-01-01T00:00:00Z"] * 3}, "timestamp", "timezone-aware"),
    "missing time": (
        {"timestamp": good()["timestamp"].where([True, False, True])},
        "row 1, column timestamp",
        "",
    ),
    "unsorted": ({"timestamp": good()["timestamp"].to_numpy()[[1, 0, 2]]}, "row 1, column timestamp", "sort"),
    "between bars": (
        {"timestamp": good()["timestamp"] + pd.to_timedelta([0, 0, 90], unit="s")},
        "row 2, column timestamp",
        "timestamp of a bar",
    ),
    "after the data": (
        {"timestamp": good()["timestamp"] + pd.to_timedelta([0, 0, 999], unit="D")},
        "row 2, column timestamp",
        "timestamp of a bar",
    ),
    "twice": (
        {"timestamp": good()["timestamp"].to_numpy()[[0, 0, 2]]},
        "row 1, column timestamp",
        "one signal",
    ),
    "other symbol": ({"symbol": ["JUMPY", "OTHER", "JUMPY"]}, "row 1, column symbol", "JUMPY"),
    "no side": ({"side": [1, 0, 1]}, "row 1, column side", "1 for long"),
    "side as word": ({"side": ["long", "short", "long"]}, "row 0, column side", ""),
    "stop above a long": ({"stop": close * [1.01, 1.02, 0.98]}, "row 0, column stop", "below"),
    "stop below a short": ({"stop": close * [0.98, 0.98, 0.98]}, "row 1, column stop", "above for a short"),
    "stop at the close": ({"stop": close * [0.98, 1.02, 1.0]}, "row 2, column stop", "below"),
    "stop not a number": ({"stop": close * [0.98, np.nan, 0.98]}, "row 1, column stop", "finite"),
    "stop infinite": ({"stop": close * [0.98, np.inf, 0.98]}, "row 1, column stop", "finite"),
    "negative stop": ({"stop": close * [-0.98, 1.02, 0.98]}, "row 0, column stop", "above zero"),
    "target below a long": ({"take_profit": close * 0.99}, "row 0, column take_profit", "above"),
    "target above a short": ({"take_profit": close * 1.01}, "row 1, column take_profit", "below for a short"),
    "target of nothing": ({"take_profit": [0.0, 0.0, 0.0]}, "row 0, column take_profit", "above zero"),
    "level of nothing": ({"entry": [1.0, 0.0, 1.0]}, "row 1, column entry", "above zero"),
    "half a bar": ({"max_hold": [5, 2.5, 5]}, "row 1, column max_hold", "whole"),
    "no bar": ({"max_hold": [5, 0, 5]}, "row 1, column max_hold", "whole"),
    "eternity": ({"max_hold": [5, 3e9, 5]}, "row 1, column max_hold", "whole"),
    "too sure": ({"confidence": [0.5, 0.5, 1.01]}, "row 2, column confidence", "0 to 1"),
    "extra column": ({"lots": [1, 2, 3]}, "columns", "leave it out"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_cell_is_refused_with_row_column_value_and_mend(case):
    columns, field, mend = WRONG[case]
    with pytest.raises(DataError) as caught:
        checked(good(**columns), BARS)
    assert field in caught.value.field
    assert mend in caught.value.mend
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["timestamp", "symbol", "side", "stop", "take_profit"])
def test_a_missing_column_is_named(column):
    with pytest.raises(DataError, match=f"add the column {column}"):
        checked(good().drop(columns=column), BARS)


def test_two_strategies_may_signal_on_one_bar():
    both = good(
        timestamp=good()["timestamp"].to_numpy()[[0, 0, 2]],
        side=[1, 1, 1],
        stop=BARS.close[[50, 50, 61]] * 0.9,
        take_profit=BARS.close[[50, 50, 61]] * 1.1,
        strategy_id=["a", "b", "a"],
    )
    assert checked(both, BARS).bar.tolist() == [50, 50, 61]
