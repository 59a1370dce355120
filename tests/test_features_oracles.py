"""The kernel against others: TA-Lib, pandas-ta-classic, arch, and the formulas of `features.spec` in slow
NumPy.

Every value from bar 101 on must agree within 1e-9, on synthetic bars and on real ones.
"""

from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pandas_ta_classic
import pytest
import talib
from arch.unitroot import VarianceRatio

from features.kernel import compute
from features.pipeline import FeaturePipeline
from features.spec import index
from market.bars import Bars
from market.sources import load
from market.synthetic import regimes

MARKETS = ("synthetic:hourly", "synthetic:minutes", "eurusd", "googl", "nasdaq", "aapl", "ibm", "msft")
every_market = pytest.mark.parametrize("market", MARKETS)


@cache
def bars(market: str) -> Bars:
    if market == "synthetic:hourly":
        return regimes(4000, seed=11)
    if market == "synthetic:minutes":
        return regimes(4000, seed=12, minutes=1, volatility=0.0002)
    return load(f"sample:{market}")[0]


@cache
def features(market: str) -> np.ndarray:
    return FeaturePipeline().matrix(bars(market))


def assert_agree(market: str, **expected: np.ndarray) -> None:
    rows = features(market)
    for name, values in expected.items():
        ours, theirs = rows[100:, index(name)], np.asarray(values)[100:]
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=1e-9, err_msg=f"{market} {name}")


@every_market
def test_recursive_features_agree_with_talib(market: str):
    b = bars(market)
    macd, _, histogram = talib.MACD(b.close, 12, 26, 9)
    atr = talib.ATR(b.high, b.low, b.close, 14)
    rsi = talib.RSI(b.close, 14)
    plus, minus = talib.PLUS_DI(b.high, b.low, b.close, 14), talib.MINUS_DI(b.high, b.low, b.close, 14)
    assert_agree(
        market,
        atr_ratio=talib.NATR(b.high, b.low, b.close, 14) / 100.0,
        rsi_norm=(rsi - 50.0) / 50.0,
        rsi_slope=(rsi - np.roll(rsi, 5)) / 100.0,
        macd_norm=macd / atr,
        macd_hist=histogram / atr,
        adx_norm=talib.ADX(b.high, b.low, b.close, 14) / 100.0,
        adx_direction=(plus - minus) / (plus + minus),
    )


@every_market
def test_window_features_agree_with_talib(market: str):
    b = bars(market)
    upper, middle, lower = talib.BBANDS(b.close, 20, 2.0, 2.0)
    highest, lowest = talib.MAX(b.high, 20), talib.MIN(b.low, 20)
    mean_volume = talib.SMA(b.volume, 20)
    assert_agree(
        market,
        bb_position=(b.close - lower) / (upper - lower),
        bb_width=(upper - lower) / middle,
        range_position=(b.close - lowest) / (highest - lowest),
        vol_ratio_5_20=talib.SMA(b.volume, 5) / mean_volume,
        vol_trend=talib.LINEARREG_SLOPE(b.volume, 20) / mean_volume * 21.0 / 6.0,
        vol_spike=(b.volume - mean_volume) / talib.STDDEV(b.volume, 20),
    )


@every_market
def test_choppiness_agrees_with_pandas_ta_classic(market: str):
    b = bars(market)
    frame = b.frame()
    chop = pandas_ta_classic.chop(
        frame["high"], frame["low"], frame["close"], length=14, atr_length=1, scalar=1.0
    )
    assert_agree(market, choppiness=np.clip(chop.to_numpy(), 0.0, 1.0))


@every_market
def test_mean_reversion_agrees_with_arch(market: str):
    b = bars(market)
    log_close = np.log(b.close)
    rows = np.linspace(100, len(b) - 1, 150).astype(int)
    windows = (log_close[row - 100 : row + 1] for row in rows)
    expected = [1.0 - VarianceRatio(window, lags=5, overlap=True, debiased=True).vr for window in windows]
    np.testing.assert_allclose(features(market)[rows, index("mean_reversion")], expected, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("drift", [0.0, 1.0, 30.0, 99.0, 101.0, 1000.0])
def test_mean_reversion_agrees_with_arch_in_trends_of_any_steepness(drift: float):
    returns = 1e-4 * (np.random.default_rng(8).standard_normal(300) + drift)
    close = 100.0 * np.exp(np.cumsum(returns))
    rows = compute(np.arange(300) * 60_000_000_000, close, close, close, close, np.zeros(300))
    log_close = np.log(close)
    for row in range(100, 300, 5):
        ratio = VarianceRatio(log_close[row - 100 : row + 1], lags=5, overlap=True, debiased=True).vr
        assert rows[row, index("mean_reversion")] == pytest.approx(1.0 - ratio, abs=1e-9)


@every_market
def test_momentum_and_returns_agree_with_pandas(market: str):
    close = pd.Series(np.log(bars(market).close))
    returns = close.diff()
    scale = np.sqrt(returns.pow(2).rolling(50).mean())
    momentum = {f"mom_{n}": (close - close.shift(n)) / (scale * np.sqrt(n)) for n in (5, 10, 20, 50)}
    lagged = {f"ret_{k}": returns.shift(k - 1) for k in (1, 2, 3, 4, 5)}
    assert_agree(market, **momentum, **lagged)


@every_market
def test_trend_strength_agrees_with_kaufmans_formula(market: str):
    close = bars(market).close
    expected = np.full(len(close), np.nan)
    for row in range(100, len(close)):
        window = close[row - 20 : row + 1]
        expected[row] = abs(window[-1] - window[0]) / np.abs(np.diff(window)).sum()
    assert_agree(market, trend_strength=expected)


@every_market
def test_calendar_agrees_with_pandas(market: str):
    index_utc = bars(market).frame().index
    angle = 2.0 * np.pi * (index_utc.hour * 3600 + index_utc.minute * 60 + index_utc.second) / 86_400.0
    assert_agree(
        market, hour_sin=np.sin(angle), hour_cos=np.cos(angle), day_of_week=index_utc.day_of_week / 6.0
    )


def confirmed_swings(values: np.ndarray) -> list[tuple[int, float]]:
    """The bar at which each swing high of `values` is known, and its level, by the words of the
    specification."""
    found = []
    for at in range(2, len(values) - 2):
        others = [values[at - 2], values[at - 1], values[at + 1], values[at + 2]]
        if all(values[at] > other for other in others):
            found.append((at + 2, values[at]))
    return found


def rising_share(levels: list[float]) -> float:
    steps = [after > before for before, after in pairwise(levels)]
    return sum(steps) / len(steps) if steps else 0.5


@every_market
def test_swings_agree_with_the_words_of_the_specification(market: str):
    b = bars(market)
    rows = min(len(b), 1500)
    peaks, troughs = confirmed_swings(b.high[:rows]), confirmed_swings(-b.low[:rows])
    expected = np.full((len(b), 3), np.nan)
    for row in range(100, rows):
        highs = [level for known, level in peaks if known <= row][-4:]
        lows = [level for known, level in troughs if known <= row][-4:]
        position = (b.close[row] + max(lows)) / (max(highs) + max(lows))
        expected[row] = rising_share(highs), rising_share(lows), np.clip(position, -1.0, 2.0)
    ours = features(market)[100:rows, index("higher_highs") : index("swing_position") + 1]
    np.testing.assert_allclose(ours, expected[100:rows], rtol=0.0, atol=1e-12)
