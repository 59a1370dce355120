"""Whatever valid bars come, every feature is finite and within the range that `features.spec` states, to the
bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features.kernel import compute, interpreted, new_state
from features.spec import FEATURE_NAMES, FEATURES

BARS = 112
MINUTE = 60_000_000_000
LOW, HIGH = np.array([feature.low for feature in FEATURES]), np.array([feature.high for feature in FEATURES])
UNIT = st.floats(0.0, 1.0)
# From markets that hardly move to prices that double or halve within a bar.
SCALES = st.sampled_from([0.0, 1e-17, 1e-15, 1e-9, 1e-4, 0.01, 0.7, 5.0])


@st.composite
def markets(draw: st.DrawFn) -> list[np.ndarray]:
    moves = draw(
        arrays(np.float64, BARS, elements=st.floats(-1.0, 1.0), fill=st.just(draw(st.floats(-1.0, 1.0))))
    )
    wicks = draw(arrays(np.float64, (3, BARS), elements=UNIT, fill=st.just(draw(UNIT))))
    volume = draw(
        arrays(np.float64, BARS, elements=st.floats(0.0, 1e100), fill=st.sampled_from([0.0, 1.0, 1e99]))
    )
    level = 10.0 ** draw(st.integers(-60, 60))
    close = np.clip(
        level * np.exp(np.cumsum(draw(SCALES) * moves)), 1e-98, 1e98
    )  # wicks reach 36 times as far
    opened = close * (1.0 + draw(SCALES) * wicks[0])
    high = np.maximum(opened, close) * (1.0 + draw(SCALES) * wicks[1])
    low = np.minimum(opened, close) / (1.0 + draw(SCALES) * wicks[2])
    time = draw(st.integers(-(2**62), 2**62)) + draw(st.integers(1, 10**15)) * np.arange(BARS)
    return [time, opened, high, low, close, volume]


def assert_in_range(rows: np.ndarray) -> None:
    assert np.isfinite(rows).all()
    outside = (rows < LOW) | (rows > HIGH)
    assert not outside.any(), [
        name for name, out in zip(FEATURE_NAMES, outside.any(axis=0), strict=True) if out
    ]


@settings(max_examples=400)
@given(markets())
def test_every_feature_is_finite_and_within_its_range(market: list[np.ndarray]):
    assert_in_range(compute(*market)[100:])


@settings(max_examples=15)
@given(markets())
def test_plain_python_gives_the_bits_of_the_compiled_code_on_extreme_bars(market: list[np.ndarray]):
    rows = np.empty((BARS, 31))
    assert interpreted()(new_state(), *market, rows) == -1
    assert rows.tobytes() == compute(*market).tobytes()


@settings(max_examples=60)
@given(markets(), st.integers(101, BARS - 1), st.randoms(use_true_random=False))
def test_no_future_changes_a_past_row(market: list[np.ndarray], known: int, random):
    changed = [column.copy() for column in market]
    for column in changed[1:5]:
        column[known:] = column[known - 1] * random.choice([0.5, 1.0, 1.5])
    changed[2][known:] = np.maximum(changed[1], np.maximum(changed[2], changed[4]))[known:]
    changed[3][known:] = np.minimum(changed[1], np.minimum(changed[3], changed[4]))[known:]
    changed[5][known:] = random.choice([0.0, 1.0, 1e90])
    assert compute(*changed)[:known].tobytes() == compute(*market)[:known].tobytes()


@pytest.mark.parametrize("doublings", [1, 2, 3, 4, 5, 6, -1, -5])
def test_constant_growth_is_the_strongest_trend_and_has_no_mean_reversion(doublings: int):
    close = 2.0 ** (doublings * (np.arange(105.0) - 52.0))
    rows = compute(np.arange(105) * MINUTE, close, close, close, close, close)[100:]
    assert_in_range(rows)
    assert (rows[:, FEATURE_NAMES.index("trend_strength")] == 1.0).all()
    assert np.allclose(np.abs(rows[:, FEATURE_NAMES.index("mom_50")]), np.sqrt(50.0))
    assert (rows[:, FEATURE_NAMES.index("mean_reversion")] == 0.0).all()


def test_growth_that_is_constant_but_for_rounding_stays_in_range():
    for seed in range(200):
        steps = np.random.default_rng(seed).choice(
            [1.0, 1.0 - 2.0**-53, 1.0 + 2.0**-52], 105, p=[0.96, 0.02, 0.02]
        )
        close = np.cumprod(2.0 * steps)
        assert_in_range(compute(np.arange(105) * MINUTE, close, close, close, close, close)[100:])
