"""Any table of rows becomes bars, or an error that names the cell."""

from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from market.bars import Bars
from market.errors import DataError
from market.frames import bars_from_frame

DAYS = ["2020-01-01", "2020-01-02", "2020-01-03"]
NANOSECONDS = pd.DatetimeIndex(DAYS).as_unit("ns").asi8


def table(timestamps=DAYS, **columns) -> pd.DataFrame:
    prices = {
        "open": [1.0, 2.0, 3.0],
        "high": [2.0, 3.0, 4.0],
        "low": [0.5, 1.5, 2.5],
        "close": [1.5, 2.5, 3.5],
    }
    return pd.DataFrame({"timestamp": timestamps, **prices, **columns})


def read(frame: pd.DataFrame) -> Bars:
    return bars_from_frame(frame)[0]


def test_the_default_names_and_a_missing_volume():
    bars = read(table())
    assert bars.symbol == "UNNAMED"
    np.testing.assert_array_equal(bars.volume, np.zeros(3))
    np.testing.assert_array_equal(bars.time, NANOSECONDS)


@pytest.mark.parametrize(
    "timestamps",
    [
        pd.DatetimeIndex(DAYS),
        pd.DatetimeIndex(DAYS).as_unit("s"),
        pd.DatetimeIndex(DAYS, tz="UTC"),
        pd.DatetimeIndex(DAYS, tz="UTC").tz_convert("America/New_York"),
        ["2020-01-01T00:00:00Z", "2020-01-02 00:00:00.000", "2020-01-03"],
        ["2020-01-01T01:00:00+01:00", "2020-01-01T19:00:00-05:00", "2020-01-03T00:00:00+00:00"],
        [datetime(2020, 1, day, tzinfo=UTC) for day in (1, 2, 3)],
        pd.Series([datetime(2020, 1, day) for day in (1, 2, 3)], dtype=object),
        NANOSECONDS,
        NANOSECONDS // 1_000,
        NANOSECONDS // 1_000_000,
        NANOSECONDS // 1_000_000_000,
        pd.array(NANOSECONDS // 1_000_000_000, dtype="Int64"),
    ],
    ids=lambda value: str(getattr(value, "dtype", type(value).__name__)),
)
def test_one_instant_written_in_many_ways_is_one_instant(timestamps):
    np.testing.assert_array_equal(read(table(timestamps)).time, NANOSECONDS)


def test_nanoseconds_keep_their_last_digit():
    odd = NANOSECONDS + np.array([1, 2, 3])
    np.testing.assert_array_equal(read(table(odd)).time, odd)


@pytest.mark.parametrize(
    ("timestamps", "row", "value", "failed"),
    [
        (["2020-01-01", "soon", "never"], 1, "soon", 2),
        (["2020-01-01", None, "2020-01-03"], 1, "nan", 1),
        (["02.01.2020", "03.01.2020", "04.01.2020"], 0, "02.01.2020", 3),
        (["1/2/2020", "1/3/2020", "1/4/2020"], 0, "1/2/2020", 3),
        ([20200101, 20200102, 20200103], 0, 20200101, 3),
        ([1577836800, 1577923200, 1578009600000], 2, 1578009600000, 1),
        ([1577836800000, 1577923200, 1578009600], 1, 1577923200, 2),
        ([99_000_000_000, 99_000_000_001, 99_000_000_002], 0, 99_000_000_000, 3),
        (pd.DatetimeIndex(["2020-01-01", "NaT", "2020-01-03"]), 1, "NaT", 1),
        (pd.DatetimeIndex(["2020-01-01", "2020-01-02", "9999-01-01"]), 2, "9999-01-01 00:00:00", 1),
        (["2020-01-01", "2020-01-02", "9999-01-01"], 2, "9999-01-01", 1),
    ],
)
def test_a_timestamp_that_is_no_clear_instant_is_named(timestamps, row, value, failed):
    with pytest.raises(DataError) as caught:
        read(table(timestamps))
    assert caught.value.field == f"UNNAMED row {row}, column timestamp"
    assert caught.value.value == value
    assert f"{failed} of 3 rows fail" in caught.value.mend
    assert "ISO 8601" in caught.value.mend


@pytest.mark.parametrize("timestamps", [[1.5e9, 1.6e9, 1.7e9], [True, False, True]])
def test_timestamps_of_another_kind_are_refused(timestamps):
    with pytest.raises(DataError, match=r"column timestamp.*ISO 8601"):
        read(table(timestamps))


def test_an_index_of_instants_goes_before_a_timestamp_column():
    frame = table(["x", "y", "z"]).set_index(pd.DatetimeIndex(DAYS))
    np.testing.assert_array_equal(read(frame).time, NANOSECONDS)


@pytest.mark.parametrize("name", ["Timestamp", " TIMESTAMP ", "Date", "time", "Datetime"])
def test_column_names_ignore_case_and_the_usual_time_names_serve(name):
    frame = table().rename(columns={"timestamp": name, "open": "OPEN", "high": " High", "close": "Close"})
    assert read(frame).digest() == read(table()).digest()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table().drop(columns=["high", "low"]), "column high, low: got 'missing'; .* timestamp, open, close"),
        (table().drop(columns="timestamp"), "column timestamp: got 'missing'.* are open, high, low, close"),
        (table().rename(columns={"timestamp": "date"}).assign(time=DAYS), "timestamp: got 'date, time'"),
        (table().assign(Open=1.0), "column open: got 'more than one'"),
        (pd.DataFrame(), "the columns are none"),
    ],
)  # fmt: skip
def test_missing_and_ambiguous_columns_are_named_with_what_exists(frame, message):
    with pytest.raises(DataError, match=message):
        read(frame)


def test_columns_that_do_not_matter_are_left_alone():
    assert read(table(note=["a", None, "c"])).digest() == read(table()).digest()


def test_numbers_written_as_text_or_decimal_are_numbers():
    frame = table(volume=["1", "2.5", "3e2"], open=[Decimal("1.0"), Decimal("2.0"), Decimal("3.0")])
    bars = read(frame)
    np.testing.assert_array_equal(bars.volume, [1.0, 2.5, 300.0])
    np.testing.assert_array_equal(bars.open, [1.0, 2.0, 3.0])
    assert Bars.from_frame(frame).digest() == bars.digest()


@pytest.mark.parametrize("door", [read, Bars.from_frame])
@pytest.mark.parametrize(
    ("cells", "row", "value"),
    [
        (["1.5", "x", "y"], 1, "x"),
        ([1.5, "2,5", 3.5], 1, "2,5"),
        ([1.5, None, "x"], 1, None),
        ([1.5, 2.5, [3.5]], 2, [3.5]),
        (pd.array([1.5, None, 3.5], dtype="Float64"), 1, pd.NA),
        (["1.5", "nan", "3.5"], 1, "nan"),
        (["1.5", "-inf", "3.5"], 1, "-inf"),
    ],
)
def test_a_cell_that_is_no_number_is_shown_as_it_was(door, cells, row, value):
    with pytest.raises(DataError) as caught:
        door(table(close=cells))
    assert f"row {row} " in caught.value.field
    assert caught.value.field.endswith("column close")
    assert caught.value.value is value or caught.value.value == value


@pytest.mark.parametrize("door", [read, Bars.from_frame])
@pytest.mark.parametrize(
    "cells", [[True, True, True], pd.DatetimeIndex(DAYS), np.array([1.5, 2.5, 3.5]) + 0j]
)
def test_columns_of_a_kind_that_is_no_price_are_refused(door, cells):
    with pytest.raises(DataError, match=r"column close.*give numbers"):
        door(table(close=cells))


def test_symbols_come_apart_in_the_order_of_their_first_row():
    frame = pd.concat([table(symbol="b"), table(symbol="a")]).sort_values("timestamp", kind="stable")
    found = bars_from_frame(frame)
    assert [bars.symbol for bars in found] == ["B", "A"]
    assert {len(bars) for bars in found} == {3}


def test_symbols_that_differ_in_case_are_one():
    frame = table(symbol=["eurusd", "EURUSD", "EurUsd"])
    assert [bars.symbol for bars in bars_from_frame(frame)] == ["EURUSD"]


def test_a_fault_among_several_symbols_is_named_by_its_row_in_the_whole_table():
    frame = pd.concat([table(symbol="A"), table(symbol="B", high=[2.0, 2.2, 4.0])], ignore_index=True)
    with pytest.raises(DataError) as caught:
        bars_from_frame(frame)
    assert caught.value.field == "B row 4 (2020-01-02T00:00:00+00:00), column high"


@pytest.mark.parametrize("symbol", [None, "", 7])
def test_a_row_without_a_symbol_is_named(symbol):
    with pytest.raises(DataError) as caught:
        bars_from_frame(table(symbol=pd.Series(["A", symbol, symbol], dtype=object)))
    assert caught.value.field == "table row 1, column symbol"
    assert "2 of 3 rows fail" in caught.value.mend


def test_one_frame_of_several_symbols_is_no_bars_of_one():
    with pytest.raises(DataError, match="give the rows of one symbol"):
        Bars.from_frame(table(symbol=["A", "A", "B"]))


def test_a_given_symbol_must_agree_with_the_frame():
    assert Bars.from_frame(table(symbol="a"), "A").symbol == "A"
    with pytest.raises(DataError, match=r"symbol: got \['A'\]; give the rows of one symbol, B"):
        Bars.from_frame(table(symbol="A"), "B")


def test_only_a_table_without_order_is_sorted():
    shuffled = table().iloc[[2, 0, 1]]
    assert bars_from_frame(shuffled, sort=True)[0].digest() == read(table()).digest()
    with pytest.raises(DataError, match="row 1, column timestamp"):
        bars_from_frame(shuffled)


def test_sorting_does_not_hide_repeated_timestamps():
    frame = table(["2020-01-02", "2020-01-01", "2020-01-02"])
    with pytest.raises(DataError, match="row 2, column timestamp: got '2020-01-02"):
        bars_from_frame(frame, sort=True)


def test_the_frame_itself_is_not_changed():
    frame = table(symbol="a", volume=["1", "2", "3"])
    before = frame.copy(deep=True)
    bars_from_frame(frame)
    pd.testing.assert_frame_equal(frame, before)
