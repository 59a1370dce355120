"""One line of text names market data; what cannot be read says why and what exists."""

import gzip
import os
import warnings

import numpy as np
import pandas as pd
import pytest

from market.errors import ConfigError, DataError
from market.sources import load
from market.synthetic import regimes

BARS = regimes(200, seed=7, symbol="demo")


def frame(symbol: str | None = None) -> pd.DataFrame:
    table = BARS.frame().reset_index()
    return table if symbol is None else table.assign(symbol=symbol)


def test_a_csv_file_is_one_symbol_named_by_the_file(tmp_path):
    frame().to_csv(tmp_path / "demo.csv", index=False)
    (bars,) = load(str(tmp_path / "demo.csv"))
    assert bars.digest() == BARS.digest()


def test_a_compressed_csv_file_reads_the_same(tmp_path):
    frame().to_csv(tmp_path / "demo.csv.gz", index=False)
    assert load(str(tmp_path / "demo.csv.gz"))[0].digest() == BARS.digest()


def test_a_csv_file_with_a_symbol_column_is_several_markets(tmp_path):
    pd.concat([frame("NA"), frame("0700"), frame("true")]).to_csv(tmp_path / "many.csv", index=False)
    found = load(str(tmp_path / "many.csv"))
    assert [bars.symbol for bars in found] == ["NA", "0700", "TRUE"]
    for bars in found:
        np.testing.assert_array_equal(bars.close, BARS.close)


@pytest.mark.parametrize("symbol", ["0700", "NAN", "TRUE", "1E5", "1.0"])
def test_a_symbol_that_looks_like_something_else_stays_text(symbol, tmp_path):
    frame(symbol).to_csv(tmp_path / "one.csv", index=False)
    assert [bars.symbol for bars in load(str(tmp_path / "one.csv"))] == [symbol]


@pytest.mark.parametrize("index", [True, False])
def test_a_parquet_file_reads_with_its_index_or_a_timestamp_column(index, tmp_path):
    (BARS.frame() if index else frame()).to_parquet(tmp_path / "demo.parquet")
    assert load(str(tmp_path / "demo.parquet"))[0].digest() == BARS.digest()


def test_one_file_out_of_a_partitioned_folder_is_named_by_the_file(tmp_path):
    (tmp_path / "symbol=0700").mkdir()
    frame().to_parquet(tmp_path / "symbol=0700" / "demo.parquet")
    assert load(str(tmp_path / "symbol=0700" / "demo.parquet"))[0].digest() == BARS.digest()


@pytest.mark.parametrize("index", [True, False])
def test_a_partitioned_folder_joins_the_files_of_each_symbol_in_time_order(index, tmp_path):
    for symbol in ("0700", "A%2FB"):
        folder = tmp_path / "bars" / f"symbol={symbol}" / "year=2000"
        folder.mkdir(parents=True)
        for name, rows in (("part-10", slice(50, 200)), ("part-2", slice(0, 50))):
            part = BARS.frame().iloc[rows]
            (part if index else part.reset_index()).to_parquet(folder / f"{name}.parquet")
    (tmp_path / "bars" / "_drafts").mkdir()
    (tmp_path / "bars" / "_drafts" / "x.parquet").write_bytes(b"half")
    (tmp_path / "bars" / ".hidden.parquet").write_bytes(b"half")
    found = load(str(tmp_path / "bars"))
    assert [bars.symbol for bars in found] == ["0700", "A/B"]
    for bars in found:
        np.testing.assert_array_equal(bars.time, BARS.time)
        np.testing.assert_array_equal(bars.close, BARS.close)


def test_a_folder_that_pandas_partitioned_reads_back(tmp_path):
    pd.concat([frame("A"), frame("B")]).to_parquet(tmp_path / "bars", partition_cols=["symbol"])
    found = load(str(tmp_path / "bars"))
    assert [(bars.symbol, len(bars)) for bars in found] == [("A", 200), ("B", 200)]
    np.testing.assert_array_equal(found[1].volume, BARS.volume)


def test_overlapping_files_of_a_folder_are_refused(tmp_path):
    for name in ("a", "b"):
        frame("X").to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"column timestamp.*must strictly increase.*200 of 400 rows fail"):
        load(str(tmp_path))


def test_an_unsorted_file_is_refused_and_not_sorted(tmp_path):
    frame().iloc[::-1].to_csv(tmp_path / "demo.csv", index=False)
    with pytest.raises(DataError, match="DEMO row 1, column timestamp"):
        load(str(tmp_path / "demo.csv"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2000-01-02,1,2,x,1,5", "BAD row 1 .*column low: got 'x'"),
        ("2000-01-02,1,2,,1,5", "BAD row 1 .*column low: got nan"),
        ("2000-01-02,1,2,N/A,1,5", "BAD row 1 .*column low: got 'N/A'"),
        ("2000-01-02,1,2,0.5", "BAD row 1 .*column close: got nan"),
        ("2000-01-02,1,2,0.5,1,5,6", "cannot be read"),
        (",1,2,0.5,1,5", "BAD row 1, column timestamp: got 'nan'"),
        ("02.01.2000,1,2,0.5,1,5", "BAD row 1, column timestamp: got '02.01.2000'"),
    ],
)
def test_a_bad_line_of_a_csv_file_is_named(line, message, tmp_path):
    head = "timestamp,open,high,low,close,volume\n2000-01-01,1,2,0.5,1,5\n"
    (tmp_path / "bad.csv").write_text(f"{head}{line}\n")
    with pytest.raises(DataError, match=message):
        load(str(tmp_path / "bad.csv"))


def test_rows_longer_than_the_header_do_not_shift_the_columns(tmp_path):
    # pandas on its own takes the first column for an index here, and every price for its neighbour.
    (tmp_path / "bad.csv").write_text("timestamp,open,high,low,close\n2000-01-01,1,2,0.5,1,5\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="cannot be read"):
            load(str(tmp_path / "bad.csv"))


@pytest.mark.parametrize("name", ["bad.csv", "bad.csv.gz", "bad.parquet"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe nonsense", "zeit;preis\n1;2\n".encode("utf-16")])
def test_files_that_are_no_data_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError):
        load(str(tmp_path / name))


@pytest.mark.parametrize("kind", ["csv.gz", "parquet"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_source_that_breaks_off_midway_gives_nothing_and_leaves_nothing(kind, share, tmp_path):
    path = tmp_path / f"demo.{kind}"
    if kind == "parquet":
        frame().to_parquet(path)
    else:
        path.write_bytes(gzip.compress(frame().to_csv(index=False).encode()))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match="cannot be read"):
        load(str(path))
    assert os.listdir(tmp_path) == [path.name]


def test_a_damaged_archive_is_refused(tmp_path):
    content = bytearray(gzip.compress(frame().to_csv(index=False).encode()))
    content[200:240] = bytes(40)
    (tmp_path / "demo.csv.gz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load(str(tmp_path / "demo.csv.gz"))


def test_a_missing_file_lists_what_its_folder_holds(tmp_path):
    for number in range(14):
        (tmp_path / f"m{number:02d}.csv").write_text("")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / "missing.csv"))
    assert "its folder holds m00.csv, m01.csv" in caught.value.mend
    assert "m11.csv and 2 more" in caught.value.mend
    assert "notes.txt" not in caught.value.mend
    assert "eurusd, googl, nasdaq, aapl, ibm, msft" in caught.value.mend


@pytest.mark.parametrize("source", ["", "nowhere/x.csv", "eurusd", "samples:eurusd", "x\x00.csv"])
def test_what_is_no_source_says_what_is(source):
    with pytest.raises(DataError, match="sample:NAME, synthetic:regimes"):
        load(source)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "data.xlsx").write_text("")
    with pytest.raises(DataError, match=r"a \.csv, \.csv\.gz or \.parquet file"):
        load(str(tmp_path / "data.xlsx"))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="the folder holds no Parquet file"):
        load(str(tmp_path))


@pytest.mark.parametrize("source", ["mysql://me:pa55@host/db?table=x", "https://me:pa55@host/x.csv"])
def test_an_unknown_scheme_shows_no_password(source):
    with pytest.raises(DataError) as caught:
        load(source)
    assert "pa55" not in str(caught.value)


def test_the_synthetic_source_takes_its_options():
    (bars,) = load("synthetic:regimes?bars=50&seed=3&minutes=1")
    assert bars.digest() == regimes(50, seed=3, minutes=1).digest()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("synthetic:waves", "synthetic:regimes"),
        ("synthetic:regimes?bar=5", "the options are bars, seed, minutes"),
        ("synthetic:regimes?bars=-5", "whole number"),
        ("synthetic:regimes?bars=1e6", "whole number"),
        ("synthetic:regimes?bars=", "whole number"),
        ("synthetic:regimes?seed=٣", "whole number"),
        ("synthetic:regimes?bars=0", "give 1 to"),
    ],
)
def test_wrong_synthetic_options_are_named(source, message):
    with pytest.raises((DataError, ConfigError), match=message):
        load(source)
