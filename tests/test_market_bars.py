"""Bars are valid, whole and unchangeable, through whichever door they came."""

import hashlib
import struct
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandera.errors import SchemaErrors

from market.bars import COLUMNS, RULES, Bars
from market.errors import ConfigError, DataError
from market.frames import bars_from_frame, schema
from market.sources import load

HOUR = 3_600_000_000_000
START = 1_483_228_800_000_000_000  # 2017-01-01


def columns(rows: int = 6) -> dict[str, np.ndarray]:
    """Valid columns: timestamp int64, the others float64."""
    close = 100.0 + np.arange(rows)
    prices = {"open": close - 0.5, "high": close + 1.0, "low": close - 1.0, "close": close}
    return {"timestamp": START + HOUR * np.arange(rows), **prices, "volume": 10.0 * np.arange(rows)}


def by_arrays(table: dict[str, np.ndarray]) -> Bars:
    return Bars.from_arrays("EURUSD", table["timestamp"], *(table[name] for name in COLUMNS))


def frame_of(table: dict[str, np.ndarray]) -> pd.DataFrame:
    index = pd.DatetimeIndex(table["timestamp"].view("datetime64[ns]"), tz="UTC")
    return pd.DataFrame({name: table[name] for name in COLUMNS}, index=index)


def by_frame(table: dict[str, np.ndarray]) -> Bars:
    return Bars.from_frame(frame_of(table), "EURUSD")


def by_pandera(table: dict[str, np.ndarray]) -> Bars:
    return bars_from_frame(frame_of(table), "EURUSD")[0]


DOORS = [by_arrays, by_frame, by_pandera]
FAULTS = [
    ("open", np.nan), ("high", np.nan), ("low", np.nan), ("close", np.nan), ("volume", np.nan),
    ("open", np.inf), ("high", np.inf), ("low", -np.inf), ("close", np.inf), ("volume", np.inf),
    ("low", 0.0), ("low", -1.0), ("low", 103.0), ("high", 102.5), ("volume", -1.0), ("volume", -1e-300),
]  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_valid_bars_pass_every_door_unchanged(door):
    table = columns()
    bars = door(table)
    assert (bars.symbol, len(bars)) == ("EURUSD", 6)
    np.testing.assert_array_equal(bars.time, table["timestamp"])
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(bars, name), table[name])
        assert getattr(bars, name).dtype == np.float64
        assert getattr(bars, name).flags.c_contiguous


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("column", "value"), FAULTS)
def test_every_door_names_row_column_and_value_of_a_fault(door, column, value):
    table = columns()
    table[column][3] = value
    with pytest.raises(DataError) as caught:
        door(table)
    assert caught.value.field == f"EURUSD row 3 (2017-01-01T03:00:00+00:00), column {column}"
    assert caught.value.value == value or (np.isnan(value) and np.isnan(caught.value.value))
    assert caught.value.mend.endswith("1 of 6 rows fails")


@pytest.mark.parametrize(("column", "value"), [*FAULTS, ("timestamp", START)])
def test_pandera_alone_refuses_every_fault(column, value):
    schema().validate(pd.DataFrame(columns()), lazy=True)
    table = columns()
    table[column][3] = value
    with pytest.raises(SchemaErrors) as caught:
        schema().validate(pd.DataFrame(table), lazy=True)
    mends = {rule.mend for rule in RULES if rule.column == column}
    assert mends & set(caught.value.failure_cases["check"])


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("step", [0, -HOUR])
def test_every_door_refuses_repeated_and_unsorted_timestamps(door, step):
    table = columns()
    table["timestamp"][4] = table["timestamp"][3] + step
    with pytest.raises(DataError) as caught:
        door(table)
    assert caught.value.field == "EURUSD row 4, column timestamp"
    assert caught.value.value == pd.Timestamp(table["timestamp"][4], tz="UTC").isoformat()
    assert "must strictly increase" in caught.value.mend
    assert "the row before: 2017-01-01T03:00:00+00:00" in caught.value.mend


@pytest.mark.parametrize("door", DOORS)
def test_a_missing_time_is_refused_even_in_the_first_row(door):
    table = columns()
    table["timestamp"][0] = np.iinfo(np.int64).min
    with pytest.raises(DataError, match="EURUSD row 0, column timestamp"):
        door(table)


@pytest.mark.parametrize("door", DOORS)
def test_the_first_of_many_faults_is_named_and_all_are_counted(door):
    table = columns()
    table["volume"][5] = -1.0
    table["high"][2] = 0.0
    table["close"][4] = np.nan
    with pytest.raises(DataError, match=r"row 2 .*column high: got 0.0; .*3 of 6 rows fail"):
        door(table)


@pytest.mark.parametrize("door", DOORS)
def test_no_rows_are_refused(door):
    with pytest.raises(DataError, match="give at least one bar"):
        door(columns(0))


price = st.floats(1e-6, 1e9)
valid_rows = st.lists(st.tuples(st.integers(1, 10**15), price, price, price, price), min_size=1, max_size=8)
anything = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, -1.0, 1e308])
)


def table_of(rows) -> dict[str, np.ndarray]:
    """Valid columns from any positive numbers: the extremes become high and low."""
    prices = np.sort(np.array([row[1:] for row in rows]), axis=1)
    names = dict(zip(("low", "open", "close", "high"), prices.T, strict=True))
    return {"timestamp": np.cumsum([row[0] for row in rows]), **names, "volume": prices[:, 0] * 0.0}


@given(valid_rows)
def test_any_valid_bars_are_the_same_through_every_door(rows):
    table = table_of(rows)
    assert len({door(table).digest() for door in DOORS}) == 1


@given(valid_rows, st.data())
def test_all_doors_agree_word_for_word_on_any_corrupted_cell(rows, data):
    table = table_of(rows)
    row = data.draw(st.integers(0, len(rows) - 1))
    table[data.draw(st.sampled_from(COLUMNS))][row] = data.draw(anything)
    verdicts = set()
    for door in DOORS:
        try:
            verdicts.add(door(table).digest())
        except DataError as error:
            verdicts.add(str(error))
    assert len(verdicts) == 1


@pytest.mark.parametrize("door", DOORS)
def test_bars_cannot_be_written_and_do_not_follow_their_source(door):
    table = columns()
    bars = door(table)
    before = bars.digest()
    table["close"][:] = 1.0
    table["timestamp"][:] = 0
    assert bars.digest() == before
    for name in ("time", *COLUMNS):
        with pytest.raises(ValueError, match="read-only"):
            getattr(bars, name)[0] = 1
    with pytest.raises(AttributeError):
        bars.symbol = "OTHER"


def test_the_direct_constructor_is_checked_too():
    table = columns()
    table["low"][1] = 0.0
    with pytest.raises(DataError, match="row 1"):
        Bars("EURUSD", table["timestamp"], *(table[name] for name in COLUMNS))


def test_a_missing_volume_means_zeros():
    table = columns()
    bars = Bars.from_arrays("X", table["timestamp"], *(table[name] for name in COLUMNS[:4]))
    np.testing.assert_array_equal(bars.volume, np.zeros(6))


def test_arrays_of_different_lengths_or_kinds_are_refused():
    table = columns()
    with pytest.raises(DataError, match="EURUSD column low"):
        by_arrays(table | {"low": table["low"][:5]})
    for wrong in (table["low"].astype(str), table["low"] > 0, table["low"].reshape(2, 3), table["low"] + 0j):
        with pytest.raises(DataError, match="EURUSD column low"):
            by_arrays(table | {"low": wrong})
    with pytest.raises(DataError, match="EURUSD column timestamp"):
        by_arrays(table | {"timestamp": table["timestamp"].astype(float)})


def test_datetime64_of_any_unit_becomes_nanoseconds():
    table = columns()
    bars = by_arrays(table | {"timestamp": table["timestamp"].view("datetime64[ns]").astype("datetime64[s]")})
    np.testing.assert_array_equal(bars.time, table["timestamp"])


def test_years_that_nanoseconds_cannot_hold_are_refused_instead_of_wrapping_around():
    late = np.array(["2017-01-01", "9999-01-01"], dtype="datetime64[s]")
    table = {name: values[:2] for name, values in columns().items()} | {"timestamp": late}
    with pytest.raises(DataError, match="1678 to 2261"):
        by_arrays(table)


@pytest.mark.parametrize("symbol", ["", "  ", "A\nB", "x" * 65, 7, None])
def test_symbols_that_are_no_names_are_refused(symbol):
    table = columns()
    with pytest.raises(DataError, match="symbol"):
        Bars.from_arrays(symbol, table["timestamp"], *(table[name] for name in COLUMNS))


def test_symbols_are_upper_case():
    table = columns()
    assert (
        Bars.from_arrays(" eurUsd ", table["timestamp"], *(table[name] for name in COLUMNS)).symbol
        == "EURUSD"
    )


def test_a_window_is_those_rows_uncopied():
    bars = by_arrays(columns())
    part = bars.window(2, 5)
    assert (part.symbol, len(part)) == ("EURUSD", 3)
    np.testing.assert_array_equal(part.close, bars.close[2:5])
    assert np.shares_memory(part.close, bars.close)
    assert len(bars.window(3, 3)) == 0
    assert not part.close.flags.writeable


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (4, 3), (0, 7)])
def test_a_window_outside_the_bars_is_refused(start, stop):
    with pytest.raises(ConfigError, match="0 <= start <= stop <= 6"):
        by_arrays(columns()).window(start, stop)


def test_the_frame_leads_back_to_the_same_bars():
    bars = by_arrays(columns())
    frame = bars.frame()
    assert list(frame.columns) == list(COLUMNS)
    assert (frame.index.name, str(frame.index.dtype)) == ("timestamp", "datetime64[ns, UTC]")
    assert Bars.from_frame(frame, "EURUSD").digest() == bars.digest()


def test_the_digest_depends_on_every_value_and_is_the_same_on_every_machine():
    table = columns()
    digests = {by_arrays(table).digest(), by_arrays(table).window(0, 5).digest()}
    digests.add(Bars.from_arrays("X", table["timestamp"], *(table[name] for name in COLUMNS)).digest())
    for name in table:
        changed = table | {name: table[name].copy()}
        changed[name][5] += 1 if name == "timestamp" else 1e-9
        digests.add(by_arrays(changed).digest())
    assert len(digests) == 3 + len(table)
    written = b"bars-1 6 6 EURUSD" + struct.pack("<6q", *table["timestamp"])
    written += b"".join(struct.pack("<6d", *table[name]) for name in COLUMNS)
    assert by_arrays(table).digest() == hashlib.sha256(written).hexdigest()


def test_the_fast_door_needs_no_pandera():
    code = (
        "import sys\nfrom market.bars import Bars\n"
        "Bars.from_arrays('X', [1, 2], [1., 1.], [1., 1.], [1., 1.], [1., 1.])\n"
        "assert not {'pandera', 'sqlalchemy', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_interval_is_the_bar_length_whatever_weekends_do() -> None:
    (hourly,), (daily,) = load("sample:eurusd"), load("sample:googl")
    hour = 3_600_000_000_000
    assert hourly.interval == hour
    assert daily.interval == 24 * hour
    assert daily.window(0, 1).interval == 0
