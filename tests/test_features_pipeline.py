"""The pipeline: every form of bars in, the same bits out; training labels; one saved file; refusals that say
where."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES, index
from market.bars import Bars
from market.errors import ConfigError, DataError
from market.sources import load
from market.synthetic import regimes

PIPELINE = FeaturePipeline()
EURUSD = regimes(900, seed=1, symbol="EURUSD")
GOOGL = regimes(400, seed=2, symbol="GOOGL", minutes=1440)
MATRIX = {bars.symbol: PIPELINE.matrix(bars) for bars in (EURUSD, GOOGL)}
FRAME = EURUSD.frame()


def long_frame() -> pd.DataFrame:
    """Both symbols in one table, rows in order of time, symbols mixed."""
    parts = [bars.frame().reset_index().assign(symbol=bars.symbol) for bars in (EURUSD, GOOGL)]
    return pd.concat(parts).sort_values("timestamp", kind="stable", ignore_index=True)


def bits(frame: pd.DataFrame) -> bytes:
    return frame[list(FEATURE_NAMES)].to_numpy().tobytes()


FORMS: dict[str, Callable[[Path], object]] = {
    "bars": lambda folder: EURUSD,
    "index": lambda folder: FRAME,
    "column": lambda folder: FRAME.reset_index(),
    "naive index": lambda folder: FRAME.tz_localize(None),
    "capital names": lambda folder: FRAME.rename(columns=str.title),
    "text": lambda folder: FRAME.reset_index().assign(timestamp=lambda frame: frame["timestamp"].astype(str)),
    "more columns": lambda folder: FRAME.assign(note="x"),
    "arrow": lambda folder: pa.Table.from_pandas(FRAME.reset_index()),
    "arrow with index": lambda folder: pa.Table.from_pandas(FRAME),
    "parquet": lambda folder: written(folder / "eurusd.parquet", FRAME.reset_index()),
    "parquet as text": lambda folder: str(written(folder / "eurusd.parquet", FRAME)),
}


def written(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(path, row_group_size=211)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_bars_gives_the_same_bits(form: str, tmp_path: Path):
    result = PIPELINE.extract(FORMS[form](tmp_path))
    assert list(result.columns) == list(FEATURE_NAMES)
    assert bits(result) == MATRIX["EURUSD"].tobytes()
    assert result.index.name == "timestamp"
    instants = result.index if result.index.tz is not None else result.index.tz_localize("UTC")
    assert instants.equals(FRAME.index)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_bars_gives_the_same_bits_in_chunks(form: str, tmp_path: Path):
    parts = list(PIPELINE.extract_chunks(FORMS[form](tmp_path), rows=128))
    assert max(len(part) for part in parts) <= 128
    assert bits(pd.concat(parts)) == MATRIX["EURUSD"].tobytes()


def test_a_frames_own_index_is_kept_so_that_features_join_their_bars():
    naive = FRAME.tz_localize(None)
    assert PIPELINE.extract(naive).index is naive.index
    assert naive.join(PIPELINE.extract(naive)).shape == (900, 36)


def test_the_input_is_neither_changed_nor_kept():
    frame = FRAME.copy()
    result = PIPELINE.extract(frame)
    pd.testing.assert_frame_equal(frame, FRAME)
    frame.loc[:, "close"] = 1.0
    assert bits(result) == MATRIX["EURUSD"].tobytes()


@pytest.mark.parametrize("threads", [None, 1, 2, 8])
def test_many_symbols_at_once_give_each_its_own_bits(threads: int | None):
    for source in (long_frame(), [EURUSD, GOOGL], pa.Table.from_pandas(long_frame())):
        result = PIPELINE.extract(source, threads=threads)
        assert list(result.columns) == ["symbol", *FEATURE_NAMES]
        for symbol, matrix in MATRIX.items():
            assert bits(result[result["symbol"] == symbol]) == matrix.tobytes()


def test_many_symbols_in_chunks_give_each_its_own_bits(tmp_path: Path):
    path = written(tmp_path / "both.parquet", long_frame())
    frames = (long_frame().iloc[start : start + 100] for start in range(0, 1300, 100))
    for source in (path, long_frame(), frames, [EURUSD, GOOGL]):
        result = pd.concat(PIPELINE.extract_chunks(source, rows=150))
        for symbol, matrix in MATRIX.items():
            assert bits(result[result["symbol"] == symbol]) == matrix.tobytes()


def test_threads_give_the_bits_of_one_after_the_other():
    markets = [regimes(3000, seed=seed, symbol=f"S{seed}") for seed in range(8)]
    assert bits(PIPELINE.extract(markets, threads=4)) == bits(PIPELINE.extract(markets, threads=1))


def test_an_iterator_is_read_one_table_at_a_time():
    taken = []

    def tables():
        for start in range(0, 900, 300):
            taken.append(start)
            yield FRAME.iloc[start : start + 300]

    chunks = PIPELINE.extract_chunks(tables())
    next(chunks)
    assert taken == [0]
    next(chunks)
    assert taken == [0, 300]


def broken(row: int, column: str, value: object) -> pd.DataFrame:
    frame = FRAME.reset_index()
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        (700, "close", np.nan),
        (0, "open", np.inf),
        (350, "volume", -1.0),
        (350, "high", 0.0),
        (899, "low", -3.0),
        (500, "timestamp", FRAME.index[499]),
        (500, "timestamp", FRAME.index[2]),
        (500, "timestamp", pd.NaT),
    ],
)
def test_a_bad_bar_is_refused_with_row_and_column_and_nothing_comes_out(row: int, column: str, value: object):
    named = f"row {row}.*column {'low' if column == 'high' and value == 0.0 else column}"
    with pytest.raises(DataError, match=named.replace("column low", "column (high|low)")):
        PIPELINE.extract(broken(row, column, value))


def test_a_bad_bar_in_a_later_chunk_is_refused_with_the_chunk_it_is_in():
    chunks = PIPELINE.extract_chunks(broken(700, "close", np.nan), rows=300)
    assert len([next(chunks), next(chunks)]) == 2
    with pytest.raises(DataError, match=r"chunk that starts at row 600: .*row 100.*column close: got nan"):
        next(chunks)


def test_time_that_goes_back_between_chunks_is_refused():
    frames = [FRAME.iloc[:300], FRAME.iloc[299:500]]
    chunks = PIPELINE.extract_chunks(frame for frame in frames)
    next(chunks)
    with pytest.raises(DataError, match="chunk that starts at row 300: UNNAMED row 0, column timestamp"):
        next(chunks)


def test_a_price_too_large_to_square_is_refused_although_it_is_finite():
    frame = FRAME.copy()
    frame.iloc[40, :4] = 1e200
    with pytest.raises(DataError, match=r"row 40, column open: got 1e\+200"):
        PIPELINE.extract(frame)


@pytest.mark.parametrize("nothing", [None, 5, [], [EURUSD, 3], {"close": [1.0]}, (bar for bar in ())])
def test_what_holds_no_bars_is_refused(nothing: object):
    with pytest.raises(DataError, match="bars"):
        PIPELINE.extract(nothing)


def test_an_empty_frame_and_a_missing_file_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="rows"):
        PIPELINE.extract(FRAME.iloc[:0])
    for read in (PIPELINE.extract, lambda source: list(PIPELINE.extract_chunks(source))):
        with pytest.raises(DataError, match="source"):
            read(tmp_path / "missing.parquet")


def test_a_parquet_file_that_ends_early_is_refused_and_names_itself(tmp_path: Path):
    path = written(tmp_path / "cut.parquet", FRAME)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cut\.parquet"):
        list(PIPELINE.extract_chunks(path))


@pytest.mark.parametrize("size", [0, -5])
def test_sizes_below_one_are_refused(size: int):
    with pytest.raises(ConfigError, match=r"rows per chunk.*at least 1"):
        next(PIPELINE.extract_chunks(FRAME, rows=size))
    with pytest.raises(ConfigError, match=r"threads.*at least 1"):
        PIPELINE.extract(FRAME, threads=size)


@pytest.mark.parametrize("horizon", [1, 7, 60])
def test_labels_say_where_the_close_went_and_rows_without_a_future_are_left_out(horizon: int):
    x, y = PIPELINE.prepare_training_data(FRAME, horizon=horizon, threshold=0.002)
    assert x.shape == (900 - 100 - horizon, 31)
    assert x.index.equals(FRAME.index[100 : 900 - horizon])
    assert y.index.equals(x.index)
    assert bits(x) == MATRIX["EURUSD"][100 : 900 - horizon].tobytes()
    for row, label in enumerate(y):
        move = np.log(EURUSD.close[100 + row + horizon] / EURUSD.close[100 + row])
        assert label == (2 if move > 0.002 else 0 if move < -0.002 else 1)
    assert set(y) == {0, 1, 2}


def test_a_move_of_exactly_the_threshold_is_flat():
    close = np.where(np.arange(110) % 2, 2.0, 1.0)
    time = np.arange(110) * 3_600_000_000_000
    bars = Bars("TOGGLE", time, close, close, close, close, np.zeros(110))
    assert set(PIPELINE.prepare_training_data(bars, 1, np.log(2.0))[1]) == {1}
    assert set(PIPELINE.prepare_training_data(bars, 1, 0.69)[1]) == {0, 2}
    assert set(PIPELINE.prepare_training_data(bars, 2, 0.0)[1]) == {1}


def test_training_data_of_many_symbols_is_labelled_per_symbol():
    x, y = PIPELINE.prepare_training_data(long_frame(), horizon=5, threshold=0.001)
    assert x.index.names == ["symbol", "timestamp"]
    assert list(x.columns) == list(FEATURE_NAMES)
    for bars in (EURUSD, GOOGL):
        alone_x, alone_y = PIPELINE.prepare_training_data(bars, horizon=5, threshold=0.001)
        assert bits(x.loc[bars.symbol]) == bits(alone_x)
        assert y.loc[bars.symbol].tolist() == alone_y.tolist()


def test_changing_bars_after_the_horizon_changes_neither_features_nor_labels():
    changed = FRAME.copy()
    changed.iloc[600:, :4] /= 3.0
    (x, y), (other_x, other_y) = (PIPELINE.prepare_training_data(f, 10, 0.001) for f in (FRAME, changed))
    same = 600 - 10 - 100
    assert bits(x.iloc[:same]) == bits(other_x.iloc[:same])
    assert y.iloc[:same].equals(other_y.iloc[:same])
    assert not y.iloc[same:].equals(other_y.iloc[same:])


def test_the_shortest_training_data_has_one_row():
    x, y = PIPELINE.prepare_training_data(EURUSD.window(0, 106), horizon=5, threshold=0.001)
    assert (len(x), len(y)) == (1, 1)
    with pytest.raises(DataError, match="EURUSD rows: got 105; needs 101 bars and the horizon of 5"):
        PIPELINE.prepare_training_data(EURUSD.window(0, 105), horizon=5, threshold=0.001)


@pytest.mark.parametrize("horizon", [0, -1, 2.0, True, None, "5"])
def test_a_horizon_that_is_no_number_of_bars_is_refused(horizon: object):
    with pytest.raises(ConfigError, match="horizon"):
        PIPELINE.prepare_training_data(FRAME, horizon, 0.001)


@pytest.mark.parametrize("threshold", [-0.1, np.nan, np.inf, None, "0.1", True])
def test_a_threshold_that_is_no_log_return_is_refused(threshold: object):
    with pytest.raises(ConfigError, match="threshold"):
        PIPELINE.prepare_training_data(FRAME, 5, threshold)


def test_a_fitted_pipeline_is_saved_and_loaded_to_the_bit(tmp_path: Path):
    x, _ = PIPELINE.prepare_training_data(FRAME, 5, 0.001)
    fitted = PIPELINE.fitted(x)
    assert PIPELINE.normaliser is None  # the one it came from is as before
    fitted.save(tmp_path / "deep" / "pipeline.json")
    again = FeaturePipeline.load(str(tmp_path / "deep" / "pipeline.json"))
    assert again.fingerprint() == fitted.fingerprint() != PIPELINE.fingerprint()
    assert again.normalised(x).tobytes() == fitted.normalised(x).tobytes()
    np.testing.assert_allclose(again.normalised(x).std(axis=0)[:9], 1.0)


def test_a_pipeline_without_normaliser_is_saved_too_but_does_not_normalise(tmp_path: Path):
    PIPELINE.save(tmp_path / "pipeline.json")
    assert FeaturePipeline.load(tmp_path / "pipeline.json").normaliser is None
    with pytest.raises(ConfigError, match="normaliser"):
        PIPELINE.normalised(MATRIX["EURUSD"])


def test_daily_bars_normalise_their_constant_hours_to_0():
    x, _ = PIPELINE.prepare_training_data(GOOGL, 5, 0.001)
    hours = slice(index("hour_sin"), index("hour_cos") + 1)
    assert (PIPELINE.fitted(x).normalised(x)[:, hours] == 0.0).all()


SAVED: dict[str, tuple[Callable[[dict], object], str]] = {
    "no JSON": (lambda saved: None, "cannot be read"),
    "a list": (lambda saved: [saved], "schema"),
    "other schema": (lambda saved: saved | {"schema": "ballast feature pipeline 2"}, "schema"),
    "missing key": (lambda saved: {key: saved[key] for key in saved if key != "names"}, "names"),
    "other features": (lambda saved: saved | {"features": "0" * 64}, "fit the pipeline again"),
    "other names": (lambda saved: saved | {"names": saved["names"][::-1]}, "fit the pipeline again"),
    "changed mean": (
        lambda saved: saved | {"normaliser": saved["normaliser"] | {"mean": ["0x1p-1"] * 31}}, "was changed",
    ),
    "no normaliser": (lambda saved: saved | {"normaliser": None}, "was changed"),
    "bad normaliser": (lambda saved: saved | {"normaliser": 3}, "normaliser"),
}  # fmt: skip


@pytest.mark.parametrize("damage", SAVED)
def test_a_damaged_or_foreign_file_is_refused(damage: str, tmp_path: Path):
    path = tmp_path / "pipeline.json"
    PIPELINE.fitted(MATRIX["EURUSD"][100:]).save(path)
    change, complaint = SAVED[damage]
    changed = change(json.loads(path.read_text()))
    path.write_text("{" if changed is None else json.dumps(changed))
    with pytest.raises(DataError, match=complaint):
        FeaturePipeline.load(path)


def test_a_missing_pipeline_file_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        FeaturePipeline.load(tmp_path / "nothing.json")


def test_a_saved_file_holds_no_rounded_number(tmp_path: Path):
    PIPELINE.fitted(MATRIX["EURUSD"][100:]).save(tmp_path / "pipeline.json")
    saved = json.loads((tmp_path / "pipeline.json").read_text())
    assert all(
        text.lstrip("-").startswith("0x") for key in ("mean", "scale") for text in saved["normaliser"][key]
    )


def test_all_samples_give_finite_features_after_the_warm_up():
    markets = load("sample:demo")
    result = PIPELINE.extract(markets)
    assert result["symbol"].unique().tolist() == [bars.symbol for bars in markets]
    borders = np.cumsum([0, *(len(bars) for bars in markets)])
    for start, stop in pairwise(borders):
        rows = result.iloc[start:stop][list(FEATURE_NAMES)].to_numpy()
        assert np.isnan(rows[:100]).all()
        assert np.isfinite(rows[100:]).all()


def test_a_parquet_file_with_several_row_groups_is_read_piece_by_piece(tmp_path: Path):
    path = written(tmp_path / "bars.parquet", FRAME)
    assert pq.ParquetFile(path).num_row_groups > 1
    sizes = [len(part) for part in PIPELINE.extract_chunks(path, rows=200)]
    assert sum(sizes) == 900
    assert max(sizes) <= 200
