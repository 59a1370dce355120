"""The kernel against itself: the same bits however bars arrive, no look at the future, no unit of measure."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import kernel, step
from features.kernel import compute, feed, interpreted, new_state
from features.spec import FEATURE_NAMES, FEATURES, WARMUP, index
from market.bars import Bars
from market.errors import DataError
from market.synthetic import regimes

BARS = regimes(1500, seed=7)
SECOND = 1_000_000_000


def arrays(bars: Bars) -> list[np.ndarray]:
    return [bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume]


ARRAYS = arrays(BARS)
WHOLE = compute(*ARRAYS)


def part(start: int, stop: int) -> list[np.ndarray]:
    return [column[start:stop] for column in ARRAYS]


def column(rows: np.ndarray, name: str) -> np.ndarray:
    return rows[:, index(name)]


def test_columns_are_named_in_the_order_of_the_specification():
    assert [getattr(step, name.upper()) for name in FEATURE_NAMES] == list(range(31))
    assert step.FEATURES == len(FEATURES) == 31
    assert step.LONG + 1 == WARMUP


def test_rows_are_nan_before_101_bars_and_finite_from_then_on():
    assert np.isnan(WHOLE[:100]).all()
    assert np.isfinite(WHOLE[100:]).all()
    assert np.isnan(compute(*part(0, 100))).all()
    assert np.isfinite(compute(*part(0, 101))[100]).all()


@settings(max_examples=40)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_any_cut_into_chunks_gives_the_bits_of_the_batch(cuts: list[int]):
    borders = sorted({0, len(BARS), *np.minimum(np.cumsum(cuts), len(BARS))})
    state = new_state()
    rows = [feed(state, *part(start, stop)) for start, stop in pairwise(borders)]
    assert np.concatenate(rows).tobytes() == WHOLE.tobytes()


def test_bars_one_by_one_give_the_bits_of_the_batch():
    state = new_state()
    rows = [feed(state, *part(at, at + 1)) for at in range(len(BARS))]
    assert np.concatenate(rows).tobytes() == WHOLE.tobytes()


def test_plain_python_gives_the_bits_of_the_compiled_code():
    plain, compiled, rows = new_state(), new_state(), np.empty((330, 31))
    run = interpreted()
    for start, stop in ((0, 1), (1, 300), (300, 330)):  # one bar, more than a block, less than a block
        assert run(plain, *part(start, stop), rows[start:stop]) == -1
        feed(compiled, *part(start, stop))
    assert rows.tobytes() == WHOLE[:330].tobytes()
    assert plain.tobytes() == compiled.tobytes()


def test_the_interpreted_step_calls_no_compiled_function():
    called = interpreted().__globals__
    compiled = [name for name, function in vars(step).items() if hasattr(function, "py_func")]
    assert len(compiled) > 10
    assert not any(hasattr(called[name], "py_func") for name in compiled)


@pytest.mark.parametrize("known", [101, 130, 248, 249, 400, 777])
def test_changing_the_future_never_changes_the_past(known: int):
    changed = [column.copy() for column in ARRAYS]
    for prices in changed[1:5]:
        prices[known:] *= 5.0
    changed[5][known:] = 0.0
    changed[0][known:] += 12_345 * SECOND
    rows = compute(*changed)
    assert rows[:known].tobytes() == WHOLE[:known].tobytes()
    assert not np.array_equal(rows[known:], WHOLE[known:])


def test_a_cut_series_gives_the_rows_of_the_whole_one():
    for stop in (101, 102, 247, 248, 249, 497, 1000):
        assert compute(*part(0, stop)).tobytes() == WHOLE[:stop].tobytes()


@pytest.mark.parametrize("start", [1, 37, 248, 600])
def test_window_features_have_the_same_bits_from_any_first_bar(start: int):
    rows = compute(*part(start, len(BARS)))
    for feature in FEATURES:
        if feature.kind == "FIR":
            at = index(feature.name)
            assert rows[100:, at].tobytes() == WHOLE[start + 100 :, at].tobytes(), feature.name


def test_recursive_features_forget_where_they_started():
    rows = compute(*part(600, len(BARS)))
    recursive = [index(feature.name) for feature in FEATURES if feature.kind == "IIR"]
    difference = np.abs(rows - WHOLE[600:])[:, recursive]
    assert difference[100].max() > 1e-6  # they do depend on it at first
    assert difference[300:].max() < 6.5e-9
    assert difference[800:].max() < 1e-14


@pytest.mark.parametrize("power", [-40, -1, 3, 40])
def test_prices_times_a_power_of_two_change_no_bit(power: int):
    time, *prices, volume = ARRAYS
    assert compute(time, *(2.0**power * price for price in prices), volume).tobytes() == WHOLE.tobytes()
    assert compute(time, *prices, 2.0**power * volume).tobytes() == WHOLE.tobytes()


@pytest.mark.parametrize("factor", [1e-6, 0.37, 3.0, 1e7])
def test_features_have_no_unit_of_price_or_volume(factor: float):
    time, *prices, volume = ARRAYS
    for rows in (
        compute(time, *(factor * p for p in prices), volume),
        compute(time, *prices, factor * volume),
    ):
        np.testing.assert_allclose(rows, WHOLE, rtol=0.0, atol=1e-9)


def test_open_has_no_influence_on_a_feature():
    time, _, high, low, close, volume = ARRAYS
    assert compute(time, close, high, low, close, volume).tobytes() == WHOLE.tobytes()


def bars_of_one_price(bars: int, price: float = 1.1, volume: float = 0.1) -> list[np.ndarray]:
    flat = np.full(bars, price)
    return [np.arange(bars) * 3600 * SECOND, flat, flat, flat, flat, np.full(bars, volume)]


def test_a_flat_market_has_the_neutral_values_to_the_bit():
    for price, volume in ((1.1, 0.1), (0.3, 0.0), (77.7, 12345.6)):
        row = compute(*bars_of_one_price(150, price, volume))[-1]
        for feature in FEATURES:
            if feature.category == "calendar":
                continue
            neutral = 0.0 if feature.neutral is None else feature.neutral
            assert row[index(feature.name)] == neutral, feature.name


def test_a_market_that_goes_flat_for_ever_ends_neutral_and_never_explodes():
    bars = 8000
    _, *halted, _ = bars_of_one_price(bars, float(ARRAYS[4][499]))
    prices = [
        np.concatenate((moving[:500], still)) for moving, still in zip(ARRAYS[1:5], halted, strict=True)
    ]
    rows = compute(np.arange(500 + bars) * 3600 * SECOND, *prices, np.zeros(500 + bars))
    assert np.isfinite(rows[100:]).all()
    assert np.abs(column(rows, "macd_norm")[100:]).max() < 5.0
    for feature in FEATURES:
        if feature.kind == "IIR":
            assert rows[-1, index(feature.name)] == (0.0 if feature.neutral is None else feature.neutral)


def test_a_market_without_volume_has_neutral_volume_features_and_nothing_else_changes():
    time, *prices, volume = ARRAYS
    rows = compute(time, *prices, np.zeros_like(volume))
    expected = WHOLE.copy()
    for name, neutral in (("vol_ratio_5_20", 1.0), ("vol_trend", 0.0), ("vol_spike", 0.0)):
        expected[100:, index(name)] = neutral
    assert rows.tobytes() == expected.tobytes()


def test_one_bar_with_volume_among_twenty_reaches_the_bounds():
    time, *prices, _ = (values[:200] for values in ARRAYS)
    volume = np.zeros(200)
    volume[150] = 3.0
    rows = compute(time, *prices, volume)
    assert rows[150, index("vol_ratio_5_20")] == 4.0
    assert rows[150, index("vol_trend")] == pytest.approx(1.0, abs=1e-12)
    assert rows[150, index("vol_spike")] == pytest.approx(np.sqrt(19.0), abs=1e-12)
    assert rows[169, index("vol_trend")] == pytest.approx(-1.0, abs=1e-12)
    assert rows[170, index("vol_trend")] == 0.0


def test_a_gap_widens_the_true_range_and_clips_choppiness():
    time, *prices, volume = (values[:140].copy() for values in ARRAYS)
    for price in prices:
        price[:] = 100.0
        price[120:] = 200.0
    prices[1][:] += 0.5  # high
    prices[2][:] -= 0.5  # low
    rows = compute(time, *prices, volume)
    assert rows[119, index("atr_ratio")] == pytest.approx(0.01)
    # Wilder: 13/14 of the old average of 1, 1/14 of the true range from 100 to 200.5
    assert rows[120, index("atr_ratio")] == pytest.approx((13.0 + 100.5) / 14.0 / 200.0)
    # Range sum 13 + 100.5 over a height of 101: next to nothing of the path went to and fro.
    assert rows[120, index("choppiness")] == pytest.approx(np.log(113.5 / 101.0) / np.log(14.0))
    for price in prices:
        price[110:120] *= 50.0
    gap = compute(time, *prices, volume)
    assert (column(gap, "choppiness")[100:] <= 1.0).all()
    assert (column(gap, "choppiness")[100:] >= 0.0).all()


def test_swing_highs_below_the_swing_lows_leave_no_range_to_stand_in():
    zigzag = 100.0 + np.tile([0.0, 1.0, 2.0, 1.0, 0.0, -1.0, -2.0, -1.0], 16)[:120]
    climb = np.linspace(112.0, 160.0, 40)  # every high above the one before: no swing high any more
    low = np.concatenate((zigzag - 0.5, np.where(np.arange(40) % 5 == 2, 108.0, 110.0)))
    high = np.concatenate((zigzag + 0.5, climb + 0.5))
    close = np.concatenate((zigzag, climb))
    rows = compute(np.arange(160) * 60_000_000_000, close, high, low, close, np.ones(160))
    place = rows[:, index("swing_position")]
    # Four lows at 108 are known from bar 120 + 17 + 2 on; the last four highs stay at 102.5.
    assert (place[139:] == 0.5).all()
    assert (place[121:139] != 0.5).all()


def test_log_returns_are_within_two_rounding_errors_of_the_logarithm_however_far_the_price_moves():
    for factor in (1.0 + 1e-12, 1.0003, 1.2, 1.3999, 1.4001, 9.0):
        close = np.where(np.arange(120) % 2, 3.7 * factor, 3.7)
        rows = compute(np.arange(120) * SECOND, close, close, close, close, np.zeros(120))
        wide = close.astype(np.longdouble)
        exact = np.log1p((wide[100:] - wide[99:-1]) / wide[99:-1])
        error = np.abs(column(rows, "ret_1")[100:] - exact) / np.spacing(np.abs(exact).astype(np.float64))
        assert error.max() < 2.0, factor


def test_gaps_in_time_are_allowed_and_only_move_the_calendar():
    time, *values = ARRAYS
    later = time.copy()
    later[700:] += 3 * 86_400 * SECOND
    rows = compute(later, *values)
    different = [
        name for name in FEATURE_NAMES if column(rows, name).tobytes() != column(WHOLE, name).tobytes()
    ]
    assert different == ["day_of_week"]


def test_the_calendar_reads_the_timestamp_in_utc():
    stamps = np.array(
        ["1969-12-31T18:00", "2024-02-29T06:00", "2024-03-03T23:59:59.9"], dtype="datetime64[ns]"
    )
    for stamp, sine, cosine, day in zip(stamps, (-1, 1, None), (0, 0, None), (2, 3, 6), strict=True):
        time = stamp.astype(np.int64) + (np.arange(101) - 100) * 60 * SECOND
        row = compute(time, *part(0, 101)[1:])[-1]
        assert row[index("day_of_week")] == day / 6.0
        if sine is not None:
            assert row[index("hour_sin")] == pytest.approx(sine, abs=1e-12)
            assert row[index("hour_cos")] == pytest.approx(cosine, abs=1e-12)
        else:
            assert row[index("hour_sin")] == np.sin(2 * np.pi * 86_399 / 86_400)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-120, 1e120])
@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_price_that_is_no_price_is_refused_with_row_column_and_value(name: str, value: float):
    columns = dict(zip(kernel.COLUMNS, (values.copy() for values in ARRAYS[1:]), strict=True))
    columns[name][333] = value
    with pytest.raises(DataError) as refused:
        compute(ARRAYS[0], **columns)
    assert refused.value.field == f"bars row 333, column {name}"
    np.testing.assert_equal(refused.value.value, value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e120])
def test_a_volume_that_is_no_volume_is_refused(value: float):
    volume = ARRAYS[5].copy()
    volume[12] = value
    with pytest.raises(DataError, match="row 12, column volume"):
        compute(*ARRAYS[:5], volume)


@pytest.mark.parametrize(
    ("name", "other", "factor"),
    [("high", "open", 1.01), ("high", "close", 1.01), ("low", "open", 0.99), ("low", "close", 0.99)],
)
def test_a_bar_whose_prices_contradict_each_other_is_refused(name: str, other: str, factor: float):
    columns = dict(zip(kernel.COLUMNS, (values.copy() for values in ARRAYS[1:]), strict=True))
    columns[other][50] = columns[name][50] * factor
    with pytest.raises(DataError, match=f"row 50, column {name}"):
        compute(ARRAYS[0], **columns)


@pytest.mark.parametrize("step_back", [0, 1])
def test_timestamps_that_repeat_or_go_back_are_refused(step_back: int):
    time = ARRAYS[0].copy()
    time[700] = time[699] - step_back
    with pytest.raises(DataError, match="row 700, column timestamp"):
        compute(time, *ARRAYS[1:])


def test_no_time_is_refused_even_on_the_first_bar():
    with pytest.raises(DataError, match="row 0, column timestamp: got 'NaT'"):
        compute(np.array(["NaT"], dtype="datetime64[ns]"), [1.0], [1.0], [1.0], [1.0], [1.0])


def test_the_first_fault_of_several_is_named():
    time, opened, high, low, close, volume = (values.copy() for values in ARRAYS)
    volume[400], close[300], time[350] = -1.0, np.nan, 0
    with pytest.raises(DataError, match="row 300, column close"):
        compute(time, opened, high, low, close, volume)


def test_a_refused_chunk_leaves_the_state_as_it_was():
    state = new_state()
    feed(state, *part(0, 300))
    before = state.tobytes()
    bad = [values.copy() for values in part(300, 600)]
    bad[4][299] = np.nan
    with pytest.raises(DataError, match="row 299, column close"):
        feed(state, *bad)
    assert state.tobytes() == before
    with pytest.raises(DataError, match="row 0, column timestamp"):
        feed(state, *part(299, 300))  # seen already, in the chunk before
    assert feed(state, *part(300, 600)).tobytes() == WHOLE[300:600].tobytes()


def test_columns_that_are_no_lists_of_numbers_are_refused():
    time, *rest = ARRAYS
    with pytest.raises(DataError, match="bars column close: got 1499; give 1500 values"):
        compute(time, *rest[:3], rest[3][:-1], rest[4])
    with pytest.raises(DataError, match="column open"):
        compute(time, rest[0].astype(str), *rest[1:])
    with pytest.raises(DataError, match="column timestamp"):
        compute(time.astype(np.float64), *rest)
    with pytest.raises(DataError, match="column volume"):
        compute(time, *rest[:4], rest[4][:, None])


def test_what_numpy_can_turn_into_the_columns_without_loss_is_taken():
    time, *prices, volume = (values[:150] for values in ARRAYS)
    given = [time.view("datetime64[ns]"), *(list(price) for price in prices), volume.astype(np.int64)]
    assert compute(*given).tobytes() == WHOLE[:150].tobytes()
    strided = np.stack(ARRAYS[1:], axis=1)
    assert compute(ARRAYS[0], *strided.T).tobytes() == WHOLE.tobytes()


def test_no_bars_give_no_rows_and_leave_the_state():
    state = new_state()
    assert feed(state, *part(0, 0)).shape == (0, 31)
    assert state.tobytes() == new_state().tobytes()


def test_step_is_compiled_for_one_type_of_input():
    writable = [values[:5].copy() for values in ARRAYS]
    compute(*writable)
    compute(*part(0, 5))
    kernel.warm()
    assert len(step.step.signatures) == 1


def test_the_first_call_leaves_scipy_alone_and_compiled_linear_algebra_still_finds_it():
    check = (
        "import sys; from features import kernel; kernel.warm(); early = 'scipy.linalg' in sys.modules;"
        "from numba import njit; import numpy as np;"
        "assert njit(lambda a: a @ a)(np.full((2, 2), 3.0))[1, 1] == 18.0;"
        "sys.exit(early or 'scipy.linalg' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], timeout=120, check=False).returncode == 0
