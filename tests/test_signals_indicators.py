import numpy as np
import pytest
import talib

from features.pipeline import FeaturePipeline
from features.spec import WARMUP, index
from signals.indicators import (
    average_true_range,
    directional_index,
    prior_highest,
    relative_strength,
    rolling_deviation,
    rolling_mean,
)
from tests.jumpy_bars import jumpy_bars


@pytest.mark.parametrize("period", [2, 14])
def test_wilder_indicators_equal_talib(period):
    bars = jumpy_bars(1500, seed=1)
    high, low, close = (np.array(column) for column in (bars.high, bars.low, bars.close))
    pairs = (
        (average_true_range(high, low, close, period), talib.ATR(high, low, close, period)),
        (relative_strength(close, period), talib.RSI(close, period)),
        (directional_index(high, low, close, period), talib.ADX(high, low, close, period)),
    )
    for ours, oracle in pairs:
        assert np.isfinite(oracle).sum() > 1000
        np.testing.assert_allclose(ours, oracle, rtol=0, atol=1e-9)


def test_rules_and_features_mean_the_same_range_and_direction():
    bars = jumpy_bars(800, seed=14)
    features = FeaturePipeline().matrix(bars)[WARMUP - 1 :]
    atr = average_true_range(bars.high, bars.low, bars.close, 14) / bars.close
    adx = directional_index(bars.high, bars.low, bars.close, 14) / 100
    np.testing.assert_allclose(features[:, index("atr_ratio")], atr[WARMUP - 1 :], rtol=0, atol=1e-9)
    np.testing.assert_allclose(features[:, index("adx_norm")], adx[WARMUP - 1 :], rtol=0, atol=1e-9)


def test_rolling_windows_equal_plain_slices():
    close = np.array(jumpy_bars(300, seed=2).close)
    for row in (19, 20, 150, 299):
        window = close[row - 19 : row + 1]
        assert rolling_mean(close, 20)[row] == pytest.approx(window.mean(), abs=1e-12)
        assert rolling_deviation(close, 20)[row] == pytest.approx(window.std(), abs=1e-12)
    assert np.isnan(rolling_mean(close, 20)[:19]).all()
    assert np.isnan(rolling_deviation(close, 20)[:19]).all()


def test_prior_highest_leaves_the_bar_itself_out():
    values = np.array([1.0, 5.0, 2.0, 9.0, 3.0])
    np.testing.assert_array_equal(prior_highest(values, 2), [np.nan, np.nan, 5.0, 5.0, 9.0])


def test_a_flat_market_is_neutral():
    flat = np.full(60, 7.0)
    assert relative_strength(flat, 2)[-1] == 50.0
    assert directional_index(flat, flat, flat, 14)[-1] == 0.0
    assert average_true_range(flat, flat, flat, 14)[-1] == 0.0


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_short_series_give_no_value_and_no_error(count):
    short = np.linspace(1.0, 2.0, count)
    for values in (
        rolling_mean(short, 20),
        prior_highest(short, 20),
        average_true_range(short, short, short, 14),
        relative_strength(short, 14),
        directional_index(short, short, short, 14),
    ):
        assert values.shape == (count,)
        assert np.isnan(values).all()
