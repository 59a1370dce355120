from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from ray.data import DataContext
from ray.exceptions import RayError

from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES
from market.errors import ConfigError, DataError
from tests.jumpy_bars import jumpy_bars
from tuning.feature_data import FeatureFiles, write_features


def write(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path)


def table_of(symbol: str, bars: int = 160, seed: int = 0) -> pd.DataFrame:
    """Bars as a table with timestamp and symbol columns."""
    return jumpy_bars(bars, seed).frame().reset_index().assign(symbol=symbol)


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Features of several symbols, by symbol and time, whatever order they came in."""
    table = frame.reset_index() if "timestamp" not in frame else frame
    table = table[["symbol", "timestamp", *FEATURE_NAMES]].sort_values(["symbol", "timestamp"])
    kinds = {"symbol": "str", "timestamp": "datetime64[ns, UTC]"}
    return table.astype(kinds).reset_index(drop=True)


def read(found: FeatureFiles) -> pd.DataFrame:
    return in_order(pq.read_table(found.folder).to_pandas())


def same_bits(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    # assert_frame_equal takes 0.0 for -0.0.
    left, right = (table[list(FEATURE_NAMES)].to_numpy() for table in (one, other))
    assert np.array_equal(np.isnan(left), np.isnan(right))
    assert np.array_equal(np.nan_to_num(left).view(np.int64), np.nan_to_num(right).view(np.int64))


@pytest.mark.usefixtures("ray_cluster")
def test_partitioned_folder_gives_the_bits_of_the_pipeline_and_one_ordered_file_per_symbol(tmp_path):
    source = tmp_path / "bars"
    first = table_of("", 300, seed=1).drop(columns="symbol")
    # The later half comes first, and counts its volume in whole numbers.
    later = first[150:].assign(volume=first["volume"][150:].round().astype(np.int64))
    write(source / "symbol=EURUSD" / "a.parquet", later)
    write(source / "symbol=EURUSD" / "b.pq", first[:150])
    write(source / "symbol=0700" / "a.parquet", table_of("", 120, seed=2).drop(columns="symbol"))
    write(source / "symbol=A%2FB" / "a.parquet", table_of("", 99, seed=3).drop(columns="symbol"))
    write(source / "symbol=A%2FB" / ".draft.parquet", pd.DataFrame({"nonsense": [1]}))
    context = DataContext.get_current().copy()
    context.target_max_block_size = 4_000  # bytes: a symbol must stay whole where it is larger than a block
    with DataContext.current(context):
        found = write_features(source, tmp_path / "deep" / "features")
    assert found.rows == 300 + 120 + 99
    assert found.folder == tmp_path / "deep" / "features"
    written = read(found)
    assert set(written["symbol"]) == {"EURUSD", "0700", "A/B"}
    same_bits(written, in_order(FeaturePipeline().extract(str(source))))
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["features"]
    tables = [pq.read_table(file) for file in found.folder.iterdir()]
    assert all(column.null_count == 0 for table in tables for column in table.columns), "NaN, as everywhere"
    files = [table.to_pandas() for table in tables]
    assert len(files) == found.files
    symbols = [symbol for file in files for symbol in file["symbol"].unique()]
    assert len(symbols) == len(set(symbols))
    assert all(
        part["timestamp"].is_monotonic_increasing for file in files for _, part in file.groupby("symbol")
    )


@pytest.mark.long
@pytest.mark.usefixtures("ray_cluster")
def test_url_of_a_file_with_an_index_and_symbols_in_any_case_gives_the_bits_of_the_pipeline(tmp_path):
    table = pd.concat([table_of("eur", 110, 1), table_of("ibm", 130, 2), table_of("EUR ", 240, 1)[110:]])
    table = table.rename(columns={"symbol": "Symbol", "close": "Close"}).astype({"Symbol": "category"})
    table = table.set_index("timestamp").assign(note="ignored", time=1)
    write(tmp_path / "run=7" / "bars.parquet", table)
    url = f"fsspec+local://{tmp_path}/run=7/bars.parquet"
    written = read(write_features(url, tmp_path / "features", partitions=3))
    assert set(written["symbol"]) == {"EUR", "IBM"}
    same_bits(written, in_order(FeaturePipeline().extract(table)))


@pytest.mark.long
@pytest.mark.usefixtures("ray_cluster")
def test_file_without_symbols_is_named_by_its_file_and_a_folder_that_is_empty_may_be_filled(tmp_path):
    write(tmp_path / "Gold.parquet", table_of("", 105).drop(columns=["symbol", "volume"]))
    (tmp_path / "features").mkdir()
    written = read(write_features(tmp_path / "Gold.parquet", tmp_path / "features", partitions=1))
    assert set(written["symbol"]) == {"GOLD"}
    expected = FeaturePipeline().extract(str(tmp_path / "Gold.parquet")).assign(symbol="GOLD")
    same_bits(written, in_order(expected))


@pytest.mark.usefixtures("ray_cluster")
def test_one_bad_bar_refuses_all_by_symbol_row_and_column_and_leaves_nothing(tmp_path):
    source, out = tmp_path / "bars", tmp_path / "out"
    for number, symbol in enumerate(("AAPL", "IBM", "MSFT")):
        table = table_of(symbol, 120, number)
        if symbol == "IBM":
            table.loc[77, "high"] = np.inf
            table = table[::-1]  # row 77 in order of time, wherever it lies
        write(source / f"{symbol}.parquet", table)
    with pytest.raises(
        DataError, match=r"^IBM row 77 \(2020-01-04T05:00:00\+00:00\), column high: got inf"
    ) as caught:
        write_features(source, out / "features", partitions=3)
    assert not isinstance(caught.value, RayError)
    assert list(out.iterdir()) == []


@pytest.mark.long
@pytest.mark.usefixtures("ray_cluster")
def test_bar_without_a_symbol_is_refused_before_anything_is_computed(tmp_path):
    table = table_of("IBM", 40)
    table.loc[11, "symbol"] = None
    write(tmp_path / "bars.parquet", table)
    with pytest.raises(DataError, match="symbol: got None; give a printable name") as caught:
        write_features(tmp_path / "bars.parquet", tmp_path / "features")
    assert not isinstance(caught.value, RayError)
    assert [path.name for path in tmp_path.iterdir()] == ["bars.parquet"]


@pytest.mark.long
@pytest.mark.usefixtures("ray_cluster")
def test_column_that_only_some_files_have_is_not_filled(tmp_path):
    write(tmp_path / "bars" / "a.parquet", table_of("IBM", 100).drop(columns="volume"))
    write(tmp_path / "bars" / "b.parquet", table_of("IBM", 140)[100:])
    with pytest.raises(DataError, match=r"IBM row 0 .*column volume: got nan"):
        write_features(tmp_path / "bars", tmp_path / "features", partitions=1)


@pytest.mark.usefixtures("ray_cluster")
def test_damaged_file_is_a_refusal_and_not_a_stack_of_ray(tmp_path):
    file = tmp_path / "bars.parquet"
    table_of("IBM", 500).to_parquet(file, compression="snappy")
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)  # the footer stays readable
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"source: got '.*bars.parquet'; cannot be read: ") as caught:
        write_features(file, tmp_path / "features")
    assert not isinstance(caught.value, RayError)
    assert not (tmp_path / "features").exists()


def test_folder_in_use_is_refused_before_any_work(tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "mine.txt").touch()
    for folder in (tmp_path / "features", tmp_path / "features" / "mine.txt"):
        with pytest.raises(ConfigError, match="in use: give a new one"):
            write_features("no such source", folder)


def test_remote_folder_and_too_few_partitions_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"s3://bucket/features.*give a local folder"):
        write_features("x", "s3://key:secret@bucket/features")
    with pytest.raises(ConfigError, match="partitions: got 0"):
        write_features("x", tmp_path / "features", partitions=0)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("missing.parquet", "no such file or folder"),
        ("nowhere://user:secret@host/bars", r"got 'nowhere://host/bars'; cannot be opened"),
        ("empty", r"no file there ends in \.parquet or \.pq"),
        ("bars.csv", "no file there ends in"),
        ("none.parquet", "rows: got 0"),
        ("text.parquet", "cannot be read"),
    ],
)
def test_source_that_is_none_is_refused_by_name(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bars.csv").write_text("timestamp,open,high,low,close")
    write(tmp_path / "none.parquet", table_of("IBM", 5)[:0])
    (tmp_path / "text.parquet").write_text("not Parquet, although it says so")
    with pytest.raises(DataError, match=words) as caught:
        write_features(source, tmp_path / "features")
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns=["low", "close"]), "column low, close: got 'missing'"),
        (lambda t: t.assign(Close=1.0), "column close: got 'more than one'"),
        (lambda t: t.assign(symbol=700), "column symbol: got 'int64'; give text"),
    ],
)
def test_columns_that_are_no_bars_are_refused_before_any_work(tmp_path, change, words):
    write(tmp_path / "bars.parquet", change(table_of("IBM", 5)))
    with pytest.raises(DataError, match=words):
        write_features(tmp_path / "bars.parquet", tmp_path / "features")


def test_files_whose_columns_contradict_each_other_are_refused(tmp_path):
    write(tmp_path / "bars" / "a.parquet", table_of("IBM", 5))
    write(tmp_path / "bars" / "b.parquet", table_of("IBM", 5).assign(close="dear"))
    with pytest.raises(DataError, match=r"cannot be read: .*close"):
        write_features(tmp_path / "bars", tmp_path / "features")
