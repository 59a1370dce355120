"""The 31 features as a user would compute them without Ballast: pandas, or TA-Lib with NumPy. Knows nothing
of the kernel.

Both are written for speed (no Python loop over bars, no `rolling.apply`) and agree with the kernel away from
the start: `benchmarks.features` checks that before it compares times.
"""

from typing import Any

import numpy as np
import pandas as pd
import talib
from numpy.typing import NDArray

from market.bars import Bars

FloatArray = NDArray[np.float64]
ROOTS = {n: np.sqrt(n) for n in (5, 10, 20, 50)}


def with_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """Features of n bars by rolling windows and exponential averages: a frame [n, 31]."""
    high, low, close, volume = frame["high"], frame["low"], frame["close"], frame["volume"]
    log_close = pd.Series(np.log(close))
    returns, change = log_close.diff(), close.diff()
    out: dict[str, Any] = {}
    scale = returns.pow(2).rolling(50).mean().pow(0.5)
    for n, root in ROOTS.items():
        out[f"mom_{n}"] = log_close.diff(n) / (scale * root)
    for k in range(1, 6):
        out[f"ret_{k}"] = returns.shift(k - 1)
    previous = close.shift()
    true_range = pd.Series(np.maximum(high, previous) - np.minimum(low, previous))
    atr = true_range.ewm(alpha=1 / 14, adjust=False).mean()
    out["atr_ratio"] = atr / close
    window = close.rolling(20)
    mean, deviation = window.mean(), window.std(ddof=0)
    out["bb_position"] = 0.5 + (close - mean) / (4.0 * deviation)
    out["bb_width"] = 4.0 * deviation / mean
    highest, lowest = high.rolling(20).max(), low.rolling(20).min()
    out["range_position"] = (close - lowest) / (highest - lowest)
    window = volume.rolling(20)
    mean = window.mean()
    out["vol_ratio_5_20"] = volume.rolling(5).mean() / mean
    ramp = pd.Series(np.arange(len(volume), dtype=np.float64), index=volume.index)
    out["vol_trend"] = window.cov(ramp, ddof=0) / (399.0 / 12.0) / mean * 3.5
    out["vol_spike"] = (volume - mean) / window.std(ddof=0)
    out |= _swings(high.to_numpy(), low.to_numpy(), close.to_numpy())
    gain = change.clip(lower=0.0).ewm(alpha=1 / 14, adjust=False).mean()
    loss = change.clip(upper=0.0).ewm(alpha=1 / 14, adjust=False).mean()
    out["rsi_norm"] = (gain + loss) / (gain - loss)
    out["rsi_slope"] = out["rsi_norm"].diff(5) / 2.0
    macd = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    out["macd_norm"] = macd / atr
    out["macd_hist"] = (macd - macd.ewm(span=9, adjust=False).mean()) / atr
    up, down = high.diff(), -low.diff()
    plus = up.where((up > down) & (up > 0.0), 0.0).ewm(alpha=1 / 14, adjust=False).mean()
    minus = down.where((down > up) & (down > 0.0), 0.0).ewm(alpha=1 / 14, adjust=False).mean()
    direction = (plus - minus) / (plus + minus)
    out["adx_norm"] = direction.abs().ewm(alpha=1 / 14, adjust=False).mean()
    out["adx_direction"] = direction
    out |= _calendar(frame.index.as_unit("ns").asi8)  # type: ignore[attr-defined]  # a DatetimeIndex
    out["trend_strength"] = close.diff(20).abs() / change.abs().rolling(20).sum()
    height = high.rolling(14).max() - low.rolling(14).min()
    out["choppiness"] = (np.log(true_range.rolling(14).sum() / height) / np.log(14.0)).clip(0.0, 1.0)
    fives = log_close.diff(5)
    mean = returns.rolling(100).mean()
    spread = fives.pow(2).rolling(96).sum() - 10.0 * mean * fives.rolling(96).sum() + 2400.0 * mean**2
    out["mean_reversion"] = 1.0 - spread / 456.0 / returns.rolling(100).var()
    return pd.DataFrame(out, index=frame.index, copy=False)


def with_talib(bars: Bars) -> FloatArray:
    """Features of n bars by TA-Lib, and NumPy where it has no such function: float64[n, 31]."""
    high, low, close, volume = bars.high, bars.low, bars.close, bars.volume
    log_close = np.log(close)
    returns = np.diff(log_close, prepend=np.nan)
    known = returns.copy()
    known[0] = 0.0  # TA-Lib's sums never recover from a NaN
    out: dict[str, FloatArray] = {}
    scale = np.sqrt(talib.SMA(known * known, 50))
    for n, root in ROOTS.items():
        out[f"mom_{n}"] = talib.MOM(log_close, n) / (scale * root)
    for k in range(1, 6):
        out[f"ret_{k}"] = _lagged(returns, k - 1)
    atr = talib.ATR(high, low, close, 14)
    out["atr_ratio"] = atr / close
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0)
    out["bb_position"] = (close - lower) / (upper - lower)
    out["bb_width"] = (upper - lower) / middle
    lowest = talib.MIN(low, 20)
    out["range_position"] = (close - lowest) / (talib.MAX(high, 20) - lowest)
    mean = talib.SMA(volume, 20)
    out["vol_ratio_5_20"] = talib.SMA(volume, 5) / mean
    out["vol_trend"] = talib.LINEARREG_SLOPE(volume, 20) / mean * 3.5
    out["vol_spike"] = (volume - mean) / talib.STDDEV(volume, 20)
    out |= _swings(high, low, close)
    out["rsi_norm"] = talib.RSI(close, 14) / 50.0 - 1.0
    out["rsi_slope"] = talib.MOM(np.nan_to_num(out["rsi_norm"]), 5) / 2.0
    macd, _, histogram = talib.MACD(close, 12, 26, 9)
    out["macd_norm"], out["macd_hist"] = macd / atr, histogram / atr
    out["adx_norm"] = talib.ADX(high, low, close, 14) / 100.0
    plus, minus = talib.PLUS_DI(high, low, close, 14), talib.MINUS_DI(high, low, close, 14)
    out["adx_direction"] = (plus - minus) / (plus + minus)
    out |= _calendar(bars.time)
    steps = np.abs(np.diff(close, prepend=close[0]))
    out["trend_strength"] = np.abs(talib.MOM(close, 20)) / talib.SUM(steps, 20)
    height = talib.MAX(high, 14) - talib.MIN(low, 14)
    ranges = np.nan_to_num(talib.TRANGE(high, low, close))
    out["choppiness"] = np.clip(np.log(talib.SUM(ranges, 14) / height) / np.log(14.0), 0.0, 1.0)
    fives = np.nan_to_num(talib.MOM(log_close, 5))
    mean = talib.SMA(known, 100)
    spread = talib.SUM(fives * fives, 96) - 10.0 * mean * talib.SUM(fives, 96) + 2400.0 * mean**2
    out["mean_reversion"] = 1.0 - spread / 456.0 / (talib.VAR(known, 100) * (100.0 / 99.0))
    return np.stack(list(out.values()), axis=1)


def _lagged(values: FloatArray, bars: int) -> FloatArray:
    return np.concatenate((np.full(bars, np.nan), values[: len(values) - bars]))


def _calendar(time: NDArray[np.int64]) -> dict[str, FloatArray]:
    seconds = time // 1_000_000_000
    angle = seconds % 86_400 * (2.0 * np.pi / 86_400.0)
    days = (seconds // 86_400 + 3) % 7
    return {"hour_sin": np.sin(angle), "hour_cos": np.cos(angle), "day_of_week": days / 6.0}


def _swings(high: FloatArray, low: FloatArray, close: FloatArray) -> dict[str, FloatArray]:
    """Shares and extremes of the last four swings, computed per swing and spread over the bars in between."""
    rising, top = _side(high)
    falling, bottom = _side(-low)
    # A strong trend may leave the latest highs below the latest lows: there is no range to stand in then.
    height = np.where(top + bottom > 0.0, top + bottom, np.nan)
    position = np.nan_to_num(np.clip((close + bottom) / height, -1.0, 2.0), nan=0.5)
    return {"higher_highs": rising, "lower_lows": falling, "swing_position": position}


def _side(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    middle = values[2:-2]
    beyond = (
        (middle > values[:-4]) & (middle > values[1:-3]) & (middle > values[3:-1]) & (middle > values[4:])
    )
    at = np.flatnonzero(beyond)
    levels = values[at + 2]
    steps = np.convolve(np.diff(levels, prepend=levels[:1]) > 0.0, np.ones(3))[: len(levels)] / 3.0
    four = np.lib.stride_tricks.sliding_window_view(np.concatenate((np.full(3, -np.inf), levels)), 4)
    latest = np.zeros(len(values), dtype=np.int64)
    latest[at + 4] = 1
    latest = np.cumsum(latest)  # 0: none yet
    first = np.full(1, np.nan)
    return np.concatenate((first, steps))[latest], np.concatenate((first, four.max(axis=1)))[latest]
