"""The few rolling and Wilder indicators that the rules decide on, each a compiled loop in which row t reads
bars up to t only.

Knows nothing of signals, positions or the 31 features: a rule must also run on markets shorter than the
features' warm-up. Every window is summed afresh, so that a bar's value never depends on how many bars follow
or how far back the series starts.
"""

import numpy as np
import numpy.typing as npt

from market.compiled import compiled

FloatArray = npt.NDArray[np.float64]


@compiled()
def rolling_mean(values: FloatArray, window: int) -> FloatArray:
    """Mean of the last `window` values, float64[n]; NaN where fewer exist."""
    result = np.full(values.size, np.nan)
    for row in range(window - 1, values.size):
        total = 0.0
        for past in range(row - window + 1, row + 1):
            total += values[past]
        result[row] = total / window
    return result


@compiled()
def rolling_deviation(values: FloatArray, window: int) -> FloatArray:
    """Population standard deviation of the last `window` values, float64[n]; NaN where fewer exist."""
    result = np.full(values.size, np.nan)
    mean = rolling_mean(values, window)
    for row in range(window - 1, values.size):
        total = 0.0
        for past in range(row - window + 1, row + 1):
            total += (values[past] - mean[row]) ** 2
        result[row] = np.sqrt(total / window)
    return result


@compiled()
def prior_highest(values: FloatArray, window: int) -> FloatArray:
    """Largest of the `window` values BEFORE each row (the row itself left out), float64[n]; NaN where fewer
    exist."""
    result = np.full(values.size, np.nan)
    for row in range(window, values.size):
        highest = values[row - window]
        for past in range(row - window + 1, row):
            highest = max(highest, values[past])
        result[row] = highest
    return result


@compiled()
def average_true_range(high: FloatArray, low: FloatArray, close: FloatArray, period: int) -> FloatArray:
    """Wilder's ATR in price units (Wilder 1978), seeded with the mean of true ranges 1..period; NaN before
    row `period`."""
    result = np.full(close.size, np.nan)
    if close.size <= period:
        return result
    average = 0.0
    for row in range(1, close.size):
        true_range = max(high[row], close[row - 1]) - min(low[row], close[row - 1])
        if row <= period:
            average += true_range / period
        else:
            average = (average * (period - 1) + true_range) / period
        if row >= period:
            result[row] = average
    return result


@compiled()
def relative_strength(close: FloatArray, period: int) -> FloatArray:
    """Wilder's RSI in [0, 100] (Wilder 1978), 50 on a flat market; NaN before row `period`."""
    result = np.full(close.size, np.nan)
    gain = 0.0
    loss = 0.0
    for row in range(1, close.size):
        change = close[row] - close[row - 1]
        if row <= period:
            gain += max(change, 0.0) / period
            loss += max(-change, 0.0) / period
        else:
            gain = (gain * (period - 1) + max(change, 0.0)) / period
            loss = (loss * (period - 1) + max(-change, 0.0)) / period
        if row >= period:
            result[row] = 100.0 * gain / (gain + loss) if gain + loss > 0.0 else 50.0
    return result


@compiled()
def directional_index(high: FloatArray, low: FloatArray, close: FloatArray, period: int) -> FloatArray:
    """Wilder's ADX in [0, 100] (Wilder 1978; seeds as in TA-Lib: sums of period-1 bars); NaN before row 2 *
    period - 1."""
    result = np.full(close.size, np.nan)
    plus = 0.0
    minus = 0.0
    total_range = 0.0
    average = 0.0
    for row in range(1, close.size):
        up = high[row] - high[row - 1]
        down = low[row - 1] - low[row]
        true_range = max(high[row], close[row - 1]) - min(low[row], close[row - 1])
        keep = 1.0 if row < period else 1.0 - 1.0 / period
        plus = plus * keep + (up if up > down and up > 0.0 else 0.0)
        minus = minus * keep + (down if down > up and down > 0.0 else 0.0)
        total_range = total_range * keep + true_range
        if row < period:
            continue
        directional = plus + minus
        strength = 100.0 * abs(plus - minus) / directional if directional > 0.0 and total_range > 0.0 else 0.0
        if row < 2 * period:
            average += strength / period
        else:
            average = (average * (period - 1) + strength) / period
        if row >= 2 * period - 1:
            result[row] = average
    return result
