import pandas as pd
import pytest

from market.errors import DataError
from signals.rules import checked, rule
from tests.jumpy_bars import jumpy_bars

BARS = jumpy_bars(200, seed=9)
HEADER = "timestamp,symbol,side,stop,take_profit"


def stamp(row: int) -> str:
    return pd.Timestamp(BARS.time[row], tz="UTC").isoformat()


def line(row: int, side: int = 1, symbol: str = "JUMPY", time: str | None = None) -> str:
    price = BARS.close[row]
    return f"{time or stamp(row)},{symbol},{side},{price * (1 - 0.02 * side)},{price * (1 + 0.04 * side)}"


def written(tmp_path, *lines: str, header: str = HEADER) -> str:
    path = tmp_path / "mine.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return f"csv:{path}"


def test_own_signals_are_read_for_the_symbol_and_span_of_the_bars(tmp_path):
    name = written(tmp_path, line(3), line(10, -1), line(11, symbol="OTHER"), line(40, symbol="jumpy"))
    table = rule(name).generate(BARS)
    assert checked(table, BARS).bar.tolist() == [3, 10, 40]
    assert checked(table, BARS).side.tolist() == [1, -1, 1]
    # On fewer bars only what could be known: the look-ahead check of every rule.
    assert checked(rule(name).generate(BARS.window(0, 11)), BARS.window(0, 11)).bar.tolist() == [3, 10]


def test_offsets_of_other_zones_are_honoured(tmp_path):
    local = pd.Timestamp(BARS.time[20], tz="UTC").tz_convert("Asia/Tokyo").isoformat()
    assert local.endswith("+09:00")
    name = written(tmp_path, line(20, time=local), line(21, time=stamp(21).replace("+00:00", "Z")))
    assert checked(rule(name).generate(BARS), BARS).bar.tolist() == [20, 21]


def test_optional_columns_are_read(tmp_path):
    header = f"{HEADER},entry,max_hold,confidence,strategy_id"
    name = written(tmp_path, f"{line(5)},99.5,7,0.25,007", header=header)
    table = rule(name).generate(BARS)
    signals = checked(table, BARS)
    assert (signals.level[0], signals.max_hold[0], signals.confidence[0]) == (99.5, 7, 0.25)
    assert table["strategy_id"].iloc[0] == "007"


@pytest.mark.parametrize(
    ("lines", "field", "value"),
    [
        ([line(3), line(4, time="2020-01-01T05:00:00")], "line 3, column timestamp", "2020-01-01T05:00:00"),
        ([line(3), line(4, time="yesterday Z")], "line 3, column timestamp", "yesterday Z"),
        ([line(3, time="2020-02-30T00:00:00Z")], "line 2, column timestamp", "2020-02-30T00:00:00Z"),
        ([line(3), f"{stamp(4)},JUMPY,1,ninety,120"], "line 3, column stop", "ninety"),
        ([line(3), f"{stamp(4)},JUMPY,1,,120"], "line 3, column stop", ""),
        ([line(3), f"{stamp(4)},JUMPY,1,nan,120"], "line 3, column stop", "nan"),
        ([f"{stamp(4)},JUMPY,buy,90,120"], "line 2, column side", "buy"),
        ([line(4), line(3)], "line 3, column timestamp", None),
        ([line(3), line(4), f"{stamp(5)},JUMPY,1,999,1999"], "line 4, column stop", 999.0),
        ([line(3), f"{stamp(4)},JUMPY,1,1,2"], "line 3, column take_profit", 2.0),
    ],
)
def test_a_bad_line_is_refused_by_its_number_in_the_file(tmp_path, lines, field, value):
    with pytest.raises(DataError) as caught:
        checked(rule(written(tmp_path, *lines)).generate(BARS), BARS)
    assert caught.value.field == field
    if value is not None:
        assert caught.value.value == value
    assert caught.value.mend


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"a,b\n1,2,3\n4,5,6,7\n", b"timestamp,side\n"])
def test_a_file_that_is_no_signal_table_is_refused(tmp_path, content):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(DataError):
        rule(f"csv:{path}").generate(BARS)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="exists"):
        rule(f"csv:{tmp_path / 'none.csv'}").generate(BARS)
