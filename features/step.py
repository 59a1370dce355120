"""The 31 features, stepped over a flat state array by one compiled function. Knows nothing of frames, symbols
or files.

`step` feeds n closed bars to a state of `SIZE` floats and writes n rows; batch, chunked batch, stream and
serving all call it. Every value of a row is computed by the same operations in the same order however the
bars are cut into calls, so the bits are the same too: windows are summed anew for every bar, and neither
`fastmath` nor fused operations are allowed.

What makes it fast: loops run over the bars of a block, so that the compiler computes eight bars at once
without reordering the sum of any; the loop over a bar's window has a fixed length and is unrolled, its sums
stay in registers. The compiler does that only where it sees that an index is not negative (count from 0, add
constants) and that columns do not overlap (their sizes are constants, and every function is part of `step`).

Definitions, sources and ranges are in `features.spec`. Seeds of the recursive features are TA-Lib's. Letters:
t counts bars from 0, i the bars of a block; age 0 is the bar itself, age 1 the one before, so that in a
channel bar i is at LONG + i, and its past at LONG + i - age. Everything compiled is in this one file, because
numba's cache goes by the time stamp of the file that holds `step`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
TimeArray = NDArray[np.int64]

# Rows of a result, in the order of `features.spec.FEATURE_NAMES`.
(
    MOM_5, MOM_10, MOM_20, MOM_50, RET_1, RET_2, RET_3, RET_4, RET_5,
    ATR_RATIO, BB_POSITION, BB_WIDTH, RANGE_POSITION,
    VOL_RATIO_5_20, VOL_TREND, VOL_SPIKE,
    HIGHER_HIGHS, LOWER_LOWS, SWING_POSITION,
    RSI_NORM, RSI_SLOPE, MACD_NORM, MACD_HIST, ADX_NORM, ADX_DIRECTION,
    HOUR_SIN, HOUR_COS, DAY_OF_WEEK,
    TREND_STRENGTH, CHOPPINESS, MEAN_REVERSION,
) = range(31)  # fmt: skip
FEATURES = 31
FIRST, SECOND, THIRD = range(FEATURES, FEATURES + 3)  # columns of what features are made of
COLUMNS = FEATURES + 3

# Bars per block: its columns should fit the processor's cache, their distance in memory be no power of two.
BLOCK = 248
LONG, SHORT = 100, 20  # bars remembered by the first two channels, and by the others
RETURN, FIVE, CLOSE, HIGH, LOW, VOLUME, RANGE, MOVE, STRENGTH = range(9)
CHANNELS = 9
DRAFT_1, DRAFT_2, DRAFT_3, DRAFT_4 = range(CHANNELS, CHANNELS + 4)  # like channels, but soon forgotten

# The state: counters, recursions, the swings of both sides, then the tail of every channel.
SEEN, DAY, NANOSECOND, FIRST_CLOSE, ATR, GAIN, LOSS, PLUS, MINUS, ADX, FAST, SLOW, SIGNAL = range(13)
PEAKS, TROUGHS = 13, 20
# One side: four levels from the newest on, then how many there are, the share that rose, and the highest.
LEVELS, SWINGS, SHARE, EXTREME = 4, 4, 5, 6
TAILS = 27
SIZE = TAILS + 2 * LONG + 7 * SHORT

DAY_NS = 86_400_000_000_000
MINUTE_NS = 60_000_000_000
SECOND_NS = 1_000_000_000
NEVER = np.iinfo(np.int64).min  # also NumPy's "not a time"
SMALLEST, LARGEST = 1e-100, 1e100  # prices and volumes beyond would overflow when squared
FLOOR = 2.0**-200  # a range this small a part of the price is what is left of one thousands of flat bars ago
# 99 and 5 (100 - 5 + 1)(1 - 5/100) = 456 make the variances of 100 returns and of their fives unbiased.
UNBIASED = 99.0 / 456.0
LEAST_REVERSION = 1.0 - 25.0 * 99.0 / 456.0  # each of 100 returns is in five sums of five at most
ROOT_5, ROOT_10, ROOT_19, ROOT_20, ROOT_50 = (math.sqrt(n) for n in (5.0, 10.0, 19.0, 20.0, 50.0))
LN_2, LN_14 = math.log(2.0), math.log(14.0)
KEPT = 13.0 / 14.0  # what Wilder's average of 14 keeps of itself with every bar
NEAR = 1.4  # numbers less than so many times apart are what `_log` is for
TURN = 2.0 * math.pi / 86_400.0
# Most bars begin with a minute: their sine and cosine are looked up, bit for bit what the functions return.
MINUTE_SINES = np.array([math.sin(60 * minute * TURN) for minute in range(1440)])
MINUTE_COSINES = np.array([math.cos(60 * minute * TURN) for minute in range(1440)])

_compiled = njit(nogil=True, error_model="numpy", forceinline=True)


@_compiled
def _clip(value: float, low: float, high: float) -> float:
    if value < low:
        return low
    return high if value > high else value


@_compiled
def _copy(column: FloatArray, values: FloatArray) -> None:
    for i in range(column.size):
        column[i] = values[i]


@_compiled
def _log(above: float, below: float) -> float:
    """ln(above / below) of numbers that are `NEAR`, within two rounding errors: the series of 2 atanh of
    (above - below) / (above + below). It is vectorised, which `math.log` is not."""
    ratio = (above - below) / (above + below)
    square = ratio * ratio
    series = 0.0
    for odd in range(19, 1, -2):
        series = (series + 1.0 / odd) * square
    return 2.0 * (ratio + ratio * series)


@_compiled
def _higher(values: FloatArray, pairs: FloatArray, apart: int) -> None:
    """The higher of every value and the one `apart` later."""
    later = values[apart:]
    for i in range(later.size):
        pairs[i] = later[i] if later[i] > values[i] else values[i]


@_compiled
def _lower(values: FloatArray, pairs: FloatArray, apart: int) -> None:
    """The lower of every value and the one `apart` later."""
    later = values[apart:]
    for i in range(later.size):
        pairs[i] = later[i] if later[i] < values[i] else values[i]


@njit(nogil=True, error_model="numpy")
def _first_fault(
    last: int,
    time: TimeArray,
    open: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    volume: FloatArray,
) -> int:
    """8 x row + column of the first value that breaks the contract (see `step`), else -1."""
    for i in range(time.size):
        if not time[i] > last:
            return 8 * i
        if not SMALLEST <= open[i] <= LARGEST:
            return 8 * i + 1
        if not SMALLEST <= high[i] <= LARGEST:
            return 8 * i + 2
        if not SMALLEST <= low[i] <= LARGEST:
            return 8 * i + 3
        if not SMALLEST <= close[i] <= LARGEST:
            return 8 * i + 4
        if not 0.0 <= volume[i] <= LARGEST:
            return 8 * i + 5
        if high[i] < open[i] or high[i] < close[i]:
            return 8 * i + 2
        if low[i] > open[i] or low[i] > close[i]:
            return 8 * i + 3
        last = time[i]
    return -1


@_compiled
def _fault(
    state: FloatArray,
    time: TimeArray,
    open: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    volume: FloatArray,
) -> int:
    """As `_first_fault`, but where all is well the bars are only counted, without a branch."""
    last = NEVER
    if state[SEEN] > 0.0:
        last = int(state[DAY]) * DAY_NS + int(state[NANOSECOND])
    good = 0
    for i in range(time.size):
        ordered = (low[i] <= open[i]) & (low[i] <= close[i]) & (open[i] <= high[i]) & (close[i] <= high[i])
        bounded = (low[i] >= SMALLEST) & (high[i] <= LARGEST) & (volume[i] >= 0.0) & (volume[i] <= LARGEST)
        good += 1 if ordered & bounded else 0
    later = time[1:]
    for i in range(later.size):
        good += 1 if later[i] > time[i] else 0
    if time.size == 0 or (time[0] > last and good == 2 * time.size - 1):
        return -1
    return _first_fault(last, time, open, high, low, close, volume)


@_compiled
def _bars(
    state: FloatArray,
    history: FloatArray,
    columns: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    volume: FloatArray,
) -> None:
    """Put a block of bars, and what follows from one bar and the one before, into the channels; and into the
    columns of `_averages` what it is to average."""
    count = close.size
    _copy(history[HIGH, LONG : LONG + count], high)
    _copy(history[LOW, LONG : LONG + count], low)
    _copy(history[CLOSE, LONG : LONG + count], close)
    _copy(history[VOLUME, LONG : LONG + count], volume)
    first = state[SEEN] == 0.0
    if first:  # the first bar is its own predecessor: no row that is shown looks back at that
        state[FIRST_CLOSE] = close[0]
        history[CLOSE, LONG - 1] = close[0]
        history[HIGH, LONG - 1] = high[0]
        history[LOW, LONG - 1] = low[0]
    highs, lows, closes = history[HIGH], history[LOW], history[CLOSE]
    returns, moves, ranges = history[RETURN], history[MOVE], history[RANGE]
    jumps = 0
    for i in range(count):
        now, before = closes[LONG + i], closes[LONG + i - 1]
        moves[LONG + i] = abs(now - before)
        returns[LONG + i] = _log(now, before)
        jumps += 1 if (now > NEAR * before) | (before > NEAR * now) else 0
    if jumps > 0:
        for i in range(count):
            now, before = closes[LONG + i], closes[LONG + i - 1]
            if (now > NEAR * before) | (before > NEAR * now):
                returns[LONG + i] = math.log(now / before)
    for i in range(count):
        before = closes[LONG + i - 1]
        top = highs[LONG + i] if highs[LONG + i] > before else before
        bottom = lows[LONG + i] if lows[LONG + i] < before else before
        ranges[LONG + i] = top - bottom
    if first:
        ranges[LONG] = 0.0
    fives = history[FIVE]
    for i in range(count):
        total = 0.0
        for age in range(5):
            total += returns[LONG + i - age]
        fives[LONG + i] = total
    ranged, gain, loss = columns[ATR_RATIO], columns[RSI_NORM], columns[RSI_SLOPE]
    plus, minus = columns[ADX_NORM], columns[ADX_DIRECTION]
    for i in range(count):
        change = closes[LONG + i] - closes[LONG + i - 1]
        up, down = highs[LONG + i] - highs[LONG + i - 1], lows[LONG + i - 1] - lows[LONG + i]
        ranged[i] = ranges[LONG + i]
        gain[i] = change if change > 0.0 else 0.0
        loss[i] = -change if change < 0.0 else 0.0
        plus[i] = up if (up > down) & (up > 0.0) else 0.0
        minus[i] = down if (down > up) & (down > 0.0) else 0.0


@_compiled
def _averages(
    state: FloatArray, history: FloatArray, columns: FloatArray, first: int, stop: int, young: bool
) -> None:
    """Put the recursive averages of each bar in the place of what is averaged, for `_oscillators`.

    `young` bars are among the first 34, which seed the averages. Wilder's are kept as sums that forget a
    fourteenth with every bar: 14 times the average. Exponential ones are kept as distances from the close,
    d = (d - change of close) x (1 - k): on flat bars they die out with the range they are divided by, instead
    of stalling at a rounding error of the price.
    """
    closes = history[CLOSE]
    ranged, gains, losses = columns[ATR_RATIO], columns[RSI_NORM], columns[RSI_SLOPE]
    pluses, minuses = columns[ADX_NORM], columns[ADX_DIRECTION]
    macds, signals = columns[MACD_NORM], columns[MACD_HIST]
    atr, gain, loss, plus, minus = state[ATR], state[GAIN], state[LOSS], state[PLUS], state[MINUS]
    fast, slow, signal = state[FAST], state[SLOW], state[SIGNAL]
    seen = int(state[SEEN])
    for i in range(first, stop):
        t = seen + i
        close = closes[LONG + i]
        change = close - closes[LONG + i - 1]
        if not (young and t <= 14):
            atr *= KEPT
            gain *= KEPT
            loss *= KEPT
        if not (young and t <= 13):
            plus *= KEPT
            minus *= KEPT
        atr += ranged[i]
        gain += gains[i]
        loss += losses[i]
        plus += pluses[i]
        minus += minuses[i]
        if young and t <= 25:
            rise = close - state[FIRST_CLOSE]
            slow += rise
            if t > 13:
                fast += rise
            if t == 25:
                fast = fast / 12.0 - rise
                slow = slow / 26.0 - rise
        else:
            fast = (fast - change) * (11.0 / 13.0)
            slow = (slow - change) * (25.0 / 27.0)
        macd = fast - slow
        if not (young and t <= 33):
            signal += (macd - signal) * 0.2
            if atr < FLOOR * close:
                atr = gain = loss = plus = minus = fast = slow = macd = signal = 0.0
        elif t == 33:
            signal = (signal + macd) / 9.0
        elif t > 24:
            signal += macd
        ranged[i] = atr
        gains[i] = gain
        losses[i] = loss
        pluses[i] = plus
        minuses[i] = minus
        macds[i] = macd
        signals[i] = signal
    state[ATR], state[GAIN], state[LOSS], state[PLUS], state[MINUS] = atr, gain, loss, plus, minus
    state[FAST], state[SLOW], state[SIGNAL] = fast, slow, signal


@_compiled
def _oscillators(state: FloatArray, history: FloatArray, columns: FloatArray, count: int) -> None:
    """Wilder's and Appel's features: ratios of the averages that `_averages` left in their columns."""
    ranged, close = columns[ATR_RATIO], history[CLOSE]
    macd, signal = columns[MACD_NORM], columns[MACD_HIST]
    plus, minus = columns[ADX_NORM], columns[ADX_DIRECTION]
    for i in range(count):
        unit = 14.0 / ranged[i] if ranged[i] > 0.0 else 0.0
        signal[i] = (macd[i] - signal[i]) * unit
        macd[i] *= unit
        ranged[i] = ranged[i] * (1.0 / 14.0) / close[LONG + i]
        moved = plus[i] + minus[i]
        minus[i] = (plus[i] - minus[i]) / moved if moved > 0.0 else 0.0
    adx, seen = state[ADX], int(state[SEEN])
    for i in range(min(max(28 - seen, 0), count)):
        if seen + i > 13:
            adx += abs(minus[i])
        plus[i] = adx
    for i in range(min(max(28 - seen, 0), count), count):
        adx = adx * KEPT + abs(minus[i])
        plus[i] = adx
    state[ADX] = adx
    for i in range(count):
        plus[i] = _clip(plus[i] * (1.0 / 14.0), 0.0, 1.0) if plus[i] > FLOOR else 0.0
    gain, loss, strength = columns[RSI_NORM], columns[RSI_SLOPE], history[STRENGTH]
    for i in range(count):
        moved = gain[i] + loss[i]
        strength[LONG + i] = (gain[i] - loss[i]) / moved if moved > 0.0 else 0.0
    for i in range(count):
        gain[i] = strength[LONG + i]
        loss[i] = (strength[LONG + i] - strength[LONG + i - 5]) * 0.5


@_compiled
def _remember(state: FloatArray, side: int, level: float) -> None:
    """Put a confirmed swing before the last three of its side; a low is negated, so that higher means
    lower."""
    for k in range(side + LEVELS - 1, side, -1):
        state[k] = state[k - 1]
    state[side] = level
    swings = min(int(state[side + SWINGS]) + 1, LEVELS)
    state[side + SWINGS] = swings
    state[side + EXTREME] = level
    rose = 0.0
    for k in range(side, side + swings - 1):
        if state[k] > state[k + 1]:
            rose += 1.0
        if state[k + 1] > state[side + EXTREME]:
            state[side + EXTREME] = state[k + 1]
    if swings > 1:
        state[side + SHARE] = rose / (swings - 1)


@_compiled
def _swings(state: FloatArray, history: FloatArray, columns: FloatArray, count: int) -> None:
    """Swing highs and lows: strictly beyond two bars on either side, known only at the second bar after."""
    highs, lows, closes = history[HIGH, LONG - 4 :], history[LOW, LONG - 4 :], history[CLOSE, LONG:]
    swung, top, bottom = columns[FIRST], columns[SECOND], columns[THIRD]
    for i in range(count):  # 1: a high, 2: a low, 3: both; without a branch, so that the loop is vectorised
        peak, trough = highs[i + 2], lows[i + 2]
        high = (peak > highs[i]) & (peak > highs[i + 1]) & (peak > highs[i + 3]) & (peak > highs[i + 4])
        low = (trough < lows[i]) & (trough < lows[i + 1]) & (trough < lows[i + 3]) & (trough < lows[i + 4])
        swung[i] = (1.0 if high else 0.0) + (2.0 if low else 0.0)
    for i in range(min(max(4 - int(state[SEEN]), 0), count)):
        swung[i] = 0.0  # the first four bars have no two before and behind them
    known = state[PEAKS + SWINGS] > 0.0 and state[TROUGHS + SWINGS] > 0.0
    for i in range(count):
        if swung[i] > 0.0:
            if swung[i] != 2.0:
                _remember(state, PEAKS, highs[i + 2])
            if swung[i] != 1.0:
                _remember(state, TROUGHS, -lows[i + 2])
            known = state[PEAKS + SWINGS] > 0.0 and state[TROUGHS + SWINGS] > 0.0
        columns[HIGHER_HIGHS, i] = state[PEAKS + SHARE]
        columns[LOWER_LOWS, i] = state[TROUGHS + SHARE]
        top[i] = state[PEAKS + EXTREME] if known else 0.0
        bottom[i] = -state[TROUGHS + EXTREME] if known else 0.0
    position = columns[SWING_POSITION]
    for i in range(count):
        # After a strong trend the latest highs may lie below the latest lows: no range to stand in.
        height = top[i] - bottom[i]
        position[i] = _clip((closes[i] - bottom[i]) / height, -1.0, 2.0) if height > 0.0 else 0.5


@_compiled
def _returns(history: FloatArray, columns: FloatArray, count: int) -> None:
    """Momentum in units of its own volatility, lagged returns, and the variance ratio of Lo and MacKinlay."""
    returns, fives = history[RETURN], history[FIVE]
    # Sums of 10, 20, 50 and 100 returns are sums of every fifth sum of five; the same for squares.
    squares = history[DRAFT_1]
    for i in range(count + 95):  # from the oldest five that a bar's window holds
        square = 0.0
        for age in range(5):
            square += returns[i + 5 - age] * returns[i + 5 - age]
        squares[i + 5] = square
    mom_5, mom_10, mom_20, mom_50 = columns[MOM_5], columns[MOM_10], columns[MOM_20], columns[MOM_50]
    totals, variations = columns[FIRST], columns[SECOND]
    for i in range(count):
        total_5 = fives[LONG + i]
        total_10 = total_5 + fives[LONG + i - 5]
        total_20 = total_10 + (fives[LONG + i - 10] + fives[LONG + i - 15])
        total_50 = total_20
        for age in range(20, 50, 5):
            total_50 += fives[LONG + i - age]
        total = total_50
        for age in range(50, 100, 5):
            total += fives[LONG + i - age]
        square = 0.0
        for age in range(0, 50, 5):
            square += squares[LONG + i - age]
        unit = math.sqrt(50.0 / square) if square > 0.0 else 0.0
        for age in range(50, 100, 5):
            square += squares[LONG + i - age]
        mom_5[i] = _clip(total_5 * unit * (1.0 / ROOT_5), -ROOT_50, ROOT_50)
        mom_10[i] = _clip(total_10 * unit * (1.0 / ROOT_10), -ROOT_50, ROOT_50)
        mom_20[i] = _clip(total_20 * unit * (1.0 / ROOT_20), -ROOT_50, ROOT_50)
        mom_50[i] = _clip(total_50 * unit * (1.0 / ROOT_50), -ROOT_50, ROOT_50)
        totals[i] = total
        variations[i] = square
    _reversion(history, columns, count)


@_compiled
def _reversion(history: FloatArray, columns: FloatArray, count: int) -> None:
    """1 - VR(5), from the sums of 100 returns (column FIRST) and of their squares (column SECOND)."""
    fives, eights, squares = history[FIVE], history[DRAFT_1], history[DRAFT_2]
    for i in range(count + 88):  # from the oldest eight that a bar's window holds
        total = square = 0.0
        for age in range(8):
            five = fives[i + 12 - age]
            total += five
            square += five * five
        eights[i + 12], squares[i + 12] = total, square
    totals, variations = columns[FIRST], columns[SECOND]
    reversion = columns[MEAN_REVERSION]
    doubtful = 0
    for i in range(count):
        total = square = 0.0
        for age in range(0, 96, 8):
            total += eights[LONG + i - age]
            square += squares[LONG + i - age]
        mean = totals[i] * 0.01
        variance = variations[i] - totals[i] * mean
        spread = (2400.0 * mean * mean - 10.0 * mean * total) + square
        ratio = 1.0 - spread * UNBIASED / variance if variance > 0.0 else 0.0
        reversion[i] = _clip(ratio, LEAST_REVERSION, 1.0)
        doubtful += 1 if variance < 1e-4 * variations[i] else 0
    if doubtful > 0:
        _reversion_about_mean(history, columns, count)


@njit(nogil=True, error_model="numpy")
def _reversion_about_mean(history: FloatArray, columns: FloatArray, count: int) -> None:
    """1 - VR(5) where the mean is above a hundred deviations, and too many digits cancel: summed about the
    mean, which counts from one of the returns, so that equal ones have no variance at all."""
    fives, returns = history[FIVE], history[RETURN]
    for i in range(count):
        if columns[SECOND, i] - columns[FIRST, i] * (columns[FIRST, i] * 0.01) < 1e-4 * columns[SECOND, i]:
            origin, mean, variance, spread = returns[LONG + i], 0.0, 0.0, 0.0
            for j in range(i + 1, i + 1 + LONG):
                mean += returns[j] - origin
            mean = origin + mean / 100.0
            for j in range(i + 1, i + 1 + LONG):
                variance += (returns[j] - mean) * (returns[j] - mean)
            for j in range(i + LONG - 95, i + LONG + 1):
                spread += (fives[j] - 5.0 * mean) * (fives[j] - 5.0 * mean)
            ratio = 1.0 - spread * UNBIASED / variance if variance > 0.0 else 0.0
            columns[MEAN_REVERSION, i] = _clip(ratio, LEAST_REVERSION, 1.0)


@_compiled
def _prices(history: FloatArray, columns: FloatArray, count: int) -> None:
    """Bollinger's band, the place in the channel, choppiness and the efficiency ratio.

    Deviations are from the bar's own close, so that equal closes have exactly none.
    """
    closes, moves, ranges = history[CLOSE], history[MOVE], history[RANGE]
    position, width, efficiency = columns[BB_POSITION], columns[BB_WIDTH], columns[TREND_STRENGTH]
    for i in range(count):
        close = closes[LONG + i]
        total = square = 0.0
        for age in range(1, 20):
            deviation = closes[LONG + i - age] - close
            total += deviation
            square += deviation * deviation
        # The close being one of the twenty itself, their variance is at least a twentieth of the mean square:
        # few digits cancel.
        off = total * 0.05
        band = 4.0 * math.sqrt((square - total * off) * 0.05)
        width[i] = band / (close + off)
        place = 0.5 - off / band if band > 0.0 else 0.5
        position[i] = _clip(place, 0.5 - ROOT_19 / 4.0, 0.5 + ROOT_19 / 4.0)
    for i in range(count):
        path = 0.0
        for age in range(20):
            path += moves[LONG + i - age]
        way = abs(closes[LONG + i] - closes[LONG + i - 20])
        efficiency[i] = _clip(way / path, 0.0, 1.0) if path > 0.0 else 0.0
    _channels(history, columns, count)
    top, bottom, choppiness = columns[FIRST], columns[SECOND], columns[CHOPPINESS]
    for i in range(count):
        path = 0.0
        for age in range(14):
            path += ranges[LONG + i - age]
        height, logarithm = top[i] - bottom[i], 0.0
        for _ in range(4):  # until they are near: beyond 1 and 14 any logarithm does, it is clipped
            far = path > NEAR * height
            height = 2.0 * height if far else height
            logarithm += LN_2 if far else 0.0
        logarithm += _log(path, height) if height > 0.0 else LN_14
        choppiness[i] = _clip(logarithm * (1.0 / LN_14), 0.0, 1.0)


@_compiled
def _channels(history: FloatArray, columns: FloatArray, count: int) -> None:
    """The place in the range of 20 bars; highest and lowest of 14 are left in columns FIRST and SECOND."""
    end = LONG + count
    tops, tops_of_4 = history[DRAFT_1, LONG - 19 : end], history[DRAFT_2, LONG - 19 : end]
    bottoms, bottoms_of_4 = history[DRAFT_3, LONG - 19 : end], history[DRAFT_4, LONG - 19 : end]
    _higher(history[HIGH, LONG - 19 : end], tops, 1)
    _higher(tops[: count + 18], tops_of_4, 2)
    _higher(tops_of_4[: count + 16], tops, 4)
    _lower(history[LOW, LONG - 19 : end], bottoms, 1)
    _lower(bottoms[: count + 18], bottoms_of_4, 2)
    _lower(bottoms_of_4[: count + 16], bottoms, 4)
    top, bottom = columns[FIRST], columns[SECOND]
    _higher(tops[6 : count + 12], top, 6)
    _lower(bottoms[6 : count + 12], bottom, 6)
    place, close = columns[RANGE_POSITION], history[CLOSE]
    for i in range(count):
        highest = tops[i] if tops[i] > top[i] else top[i]
        lowest = bottoms[i] if bottoms[i] < bottom[i] else bottom[i]
        place[i] = (close[LONG + i] - lowest) / (highest - lowest) if highest > lowest else 0.5


@_compiled
def _volumes(history: FloatArray, columns: FloatArray, count: int) -> None:
    """Volume against its mean of 20 bars: short ratio, slope, deviation. Without volume: neutral values."""
    volumes = history[VOLUME]
    ratio, trend, spike = columns[VOL_RATIO_5_20], columns[VOL_TREND], columns[VOL_SPIKE]
    for i in range(count):
        volume = volumes[LONG + i]
        total = square = slope = recent = 0.0
        for age in range(1, 20):
            deviation = volumes[LONG + i - age] - volume
            total += deviation
            square += deviation * deviation
            slope += (9.5 - age) * deviation
            if age == 4:
                recent = total
        off = total * 0.05
        variance = (square - total * off) * 0.05
        spike[i] = _clip(-off / math.sqrt(variance), -ROOT_19, ROOT_19) if variance > 0.0 else 0.0
        recent += 5.0 * volume
        total += 20.0 * volume
        ratio[i] = _clip(4.0 * recent / total, 0.0, 4.0) if total > 0.0 else 1.0
        # 665: sum of the squared distances of 20 bars from their middle; 70 = 20 x 21/6 scales to -1..1
        trend[i] = _clip(slope * (70.0 / 665.0) / total, -1.0, 1.0) if total > 0.0 else 0.0


@_compiled
def _calendar(columns: FloatArray, time: TimeArray) -> None:
    """Time of day and day of week by whole seconds of the bar's timestamp in UTC; 1970 began on a
    Thursday."""
    sines, cosines, days = columns[HOUR_SIN], columns[HOUR_COS], columns[DAY_OF_WEEK]
    midnight, weekday = time[0] + 1, 0.0  # not yet known
    for i in range(time.size):
        clock = time[i] - midnight
        if not 0 <= clock < DAY_NS:
            day = time[i] // DAY_NS
            clock = time[i] % DAY_NS
            midnight, weekday = time[i] - clock, (day + 3) % 7 / 6.0
        days[i] = weekday
        minute = clock // MINUTE_NS
        if clock - minute * MINUTE_NS < SECOND_NS:
            sines[i], cosines[i] = MINUTE_SINES[minute], MINUTE_COSINES[minute]
        else:
            angle = clock // SECOND_NS * TURN
            sines[i], cosines[i] = math.sin(angle), math.cos(angle)


@_compiled
def _write(rows: FloatArray, history: FloatArray, columns: FloatArray, first: int) -> None:
    """Write the bars of a block from `first` on as rows; lagged returns come right from their channel."""
    returns = history[RETURN]
    for i in range(rows.shape[0]):
        for feature in range(RET_1):
            rows[i, feature] = columns[feature, first + i]
        for age in range(5):
            rows[i, RET_1 + age] = returns[LONG + first + i - age]
        for feature in range(ATR_RATIO, FEATURES):
            rows[i, feature] = columns[feature, first + i]


@_compiled
def _tails(state: FloatArray, history: FloatArray, count: int, restore: bool) -> None:
    """Copy each channel's tail from the state to before the block (`restore`), or from its end to the
    state."""
    at = TAILS
    for channel in range(CHANNELS):
        length = LONG if channel <= FIVE else SHORT
        if restore:
            _copy(history[channel, LONG - length : LONG], state[at : at + length])
        else:
            _copy(state[at : at + length], history[channel, LONG + count - length : LONG + count])
        at += length


@njit(cache=True, nogil=True, error_model="numpy")
def step(
    state: FloatArray,
    time: TimeArray,
    open: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    volume: FloatArray,
    rows: FloatArray,
) -> int:
    """Feed n closed bars to `state` float64[SIZE], write `rows` float64[n, 31]: NaN until 101 bars were seen.

    `time` is int64 ns since the epoch in UTC, strictly increasing also against the last bar seen. Returns -1,
    or, where a value breaks the contract, 8 x row + its column (timestamp 0, open 1, high 2, low 3, close 4,
    volume 5); neither state nor rows are touched then.
    """
    fault = _fault(state, time, open, high, low, close, volume)
    if fault >= 0:
        return fault
    # Of one size known to the compiler, which then sees that no two columns share memory.
    history = np.empty((CHANNELS + 4, LONG + BLOCK))
    columns = np.empty((COLUMNS, BLOCK))
    for start in range(0, time.size, BLOCK):
        stop = min(start + BLOCK, time.size)
        count = stop - start
        seen = int(state[SEEN])
        _tails(state, history, count, True)
        _bars(
            state, history, columns, high[start:stop], low[start:stop], close[start:stop], volume[start:stop]
        )
        seeding = min(max(34 - seen, 0), count)
        _averages(state, history, columns, 0, seeding, True)
        _averages(state, history, columns, seeding, count, False)
        _oscillators(state, history, columns, count)
        _swings(state, history, columns, count)
        if seen + count > LONG:
            _returns(history, columns, count)
            _prices(history, columns, count)
            _volumes(history, columns, count)
            _calendar(columns, time[start:stop])
        warm = min(max(LONG - seen, 0), count)
        for i in range(start, start + warm):
            for feature in range(FEATURES):
                rows[i, feature] = math.nan
        _write(rows[start + warm : stop], history, columns, warm)
        _tails(state, history, count, False)
        state[SEEN] = seen + count
        state[DAY] = time[stop - 1] // DAY_NS
        state[NANOSECOND] = time[stop - 1] % DAY_NS
    return -1
