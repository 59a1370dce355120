"""The 31 features, stepped over a flat state array by one compiled function. Knows nothing of frames, symbols
or files.

`step` feeds n closed bars to a state of `SIZE` floats and writes n rows; batch, chunked batch, stream and
serving all call it. Every value of a row is computed by the same operations in the same order however the
bars are cut into calls, so the bits are the same too: loops run over the bars of a block (which is what lets
the compiler vectorise them without reordering a sum), windows are summed anew for every bar, and neither
`fastmath` nor fused operations are allowed.

Definitions, sources and ranges are in `features.spec`. Seeds of the recursive features are TA-Lib's. Letters:
t counts bars from 0, i the bars of a block, j the offsets into a window; age 0 is the bar itself, age 1 the
one before. Everything compiled is in this one file, because numba's cache goes by the time stamp of the file
that holds `step`.
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
ZERO, FIRST, SECOND, THIRD = range(FEATURES, FEATURES + 4)  # columns of zeros and of intermediate sums
COLUMNS = FEATURES + 4

# Bars per block: its columns should fit the processor's cache, their distance in memory be no power of two.
BLOCK = 248
LONG, SHORT = 100, 20  # bars remembered by the first two channels, and by the others
RETURN, FIVE, CLOSE, HIGH, LOW, VOLUME, RANGE, MOVE, STRENGTH = range(9)
CHANNELS = 9
DRAFT_1, DRAFT_2, DRAFT_3, DRAFT_4 = range(
    CHANNELS, CHANNELS + 4
)  # as long as channels, but forgotten after each block

# The state: counters, recursions, the swings of both sides, then the tail of every channel.
SEEN, DAY, NANOSECOND, FIRST_CLOSE, ATR, GAIN, LOSS, PLUS, MINUS, ADX, FAST, SLOW, SIGNAL = range(13)
PEAKS, TROUGHS = 13, 20
# One side: four levels from the newest on, then how many there are, the share that rose, and the highest.
LEVELS, SWINGS, SHARE, EXTREME = 4, 4, 5, 6
TAILS = 27
SIZE = TAILS + 2 * LONG + 7 * SHORT

DAY_NS = 86_400_000_000_000
SECOND_NS = 1_000_000_000
NEVER = np.iinfo(np.int64).min  # also NumPy's "not a time"
SMALLEST, LARGEST = 1e-100, 1e100  # prices and volumes beyond would overflow when squared
FLOOR = 2.0**-200  # a range this small a part of the price is what is left of one thousands of flat bars ago
LEAST_REVERSION = 1.0 - 25.0 * 99.0 / 456.0  # each of 100 returns is in five sums of five at most
ROOT_19, ROOT_50, LN_14 = math.sqrt(19.0), math.sqrt(50.0), math.log(14.0)
TURN = 2.0 * math.pi / 86_400.0
# Most bars begin with a minute: their sine and cosine are looked up, bit for bit what the functions return.
MINUTE_SINES = np.array([math.sin(60 * minute * TURN) for minute in range(1440)])
MINUTE_COSINES = np.array([math.cos(60 * minute * TURN) for minute in range(1440)])

_compiled = njit(nogil=True, error_model="numpy")


@_compiled
def _clip(value: float, low: float, high: float) -> float:
    if value < low:
        return low
    return high if value > high else value


@_compiled
def _ages(channel: FloatArray, first: int, last: int, count: int) -> FloatArray:
    """The values of ages `first` to `last - 1` of a block's `count` bars: bar i's window starts at i."""
    return channel[LONG + 1 - last : LONG - first + count]


@_compiled
def _fill(column: FloatArray, value: float) -> None:
    for i in range(column.size):
        column[i] = value


@_compiled
def _copy(column: FloatArray, values: FloatArray) -> None:
    for i in range(column.size):
        column[i] = values[i]


@_compiled
def _add(totals: FloatArray, values: FloatArray, origins: FloatArray, apart: int) -> None:
    """Add every `apart`-th value of each bar's window, less the bar's origin; by fours, to spare loads."""
    count = totals.size
    window = values.size - count + 1
    fours = window // (4 * apart) * (4 * apart)
    for j in range(0, fours, 4 * apart):
        # Slices, because indices from 0 on are known not to be negative: only such loops are vectorised.
        a, b, c, d = values[j:], values[j + apart :], values[j + 2 * apart :], values[j + 3 * apart :]
        for i in range(count):
            origin = origins[i]
            totals[i] += ((a[i] - origin) + (b[i] - origin)) + ((c[i] - origin) + (d[i] - origin))
    for j in range(fours, window, apart):
        a = values[j:]
        for i in range(count):
            totals[i] += a[i] - origins[i]


@_compiled
def _add_squares(totals: FloatArray, values: FloatArray, origins: FloatArray) -> None:
    """Add the squares of each bar's window of `values` less the bar's origin; windows of whole fours."""
    count = totals.size
    for j in range(0, values.size - count + 1, 4):
        part = values[j:]
        for i in range(count):
            origin = origins[i]
            a, b = part[i] - origin, part[i + 1] - origin
            c, d = part[i + 2] - origin, part[i + 3] - origin
            totals[i] += (a * a + b * b) + (c * c + d * d)


@_compiled
def _pair(sums: FloatArray, values: FloatArray, apart: int) -> None:
    """Every value plus the one `apart` later."""
    later = values[apart:]
    for i in range(later.size):
        sums[i] = values[i] + later[i]


@_compiled
def _add_96(totals: FloatArray, values: FloatArray, spare: FloatArray, zero: FloatArray) -> None:
    """Add windows of 96 values as twelve sums of eight. Overwrites `values` and `spare`, equally long."""
    size = values.size
    _pair(spare, values, 1)
    _pair(values, spare[: size - 1], 2)
    _pair(spare, values[: size - 3], 4)
    _add(totals, spare[: size - 7], zero, 8)


@_compiled
def _extremes(highs: FloatArray, lows: FloatArray, tops: FloatArray, bottoms: FloatArray, apart: int) -> None:
    """The higher of every high and the one `apart` later, and the lower of every low."""
    high, low = highs[apart:], lows[apart:]
    for i in range(high.size):
        tops[i] = high[i] if high[i] > highs[i] else highs[i]
    for i in range(low.size):
        bottoms[i] = low[i] if low[i] < lows[i] else lows[i]


@_compiled
def _wilder(average: float, value: float, t: int, first: int) -> float:
    """Wilder's average of 14: a mean at bar `first`, from then on a fourteenth of the way to each value."""
    if t > first:
        return average + (value - average) * (1.0 / 14.0)
    if t == first:
        return (average + value) / 14.0
    return average + value


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
    """-1, or 8 x row + column of the first value that breaks the contract (see `step`)."""
    last = NEVER
    if state[SEEN] > 0.0:
        last = int(state[DAY]) * DAY_NS + int(state[NANOSECOND])
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
def _bars(
    state: FloatArray,
    history: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    volume: FloatArray,
) -> None:
    """Put a block of bars and what follows from one bar and the one before into the channels."""
    count = close.size
    highs, lows, closes = history[HIGH, LONG:], history[LOW, LONG:], history[CLOSE, LONG:]
    _copy(history[HIGH, LONG : LONG + count], high)
    _copy(history[LOW, LONG : LONG + count], low)
    _copy(history[CLOSE, LONG : LONG + count], close)
    _copy(history[VOLUME, LONG : LONG + count], volume)
    if state[SEEN] == 0.0:  # the first bar is its own predecessor: no row that is shown looks back at that
        state[FIRST_CLOSE] = close[0]
        history[CLOSE, LONG - 1] = close[0]
        history[HIGH, LONG - 1] = high[0]
        history[LOW, LONG - 1] = low[0]
    previous = history[CLOSE, LONG - 1 :]
    moves, ranges = history[MOVE, LONG:], history[RANGE, LONG:]
    for i in range(count):
        moves[i] = abs(closes[i] - previous[i])
    for i in range(count):
        top = highs[i] if highs[i] > previous[i] else previous[i]
        bottom = lows[i] if lows[i] < previous[i] else previous[i]
        ranges[i] = top - bottom
    # Not a difference of logarithms: the logarithm of the ratio cancels nothing, and scaling by 2 leaves its
    # bits.
    returns, fives = history[RETURN, LONG - 4 :], history[FIVE, LONG:]
    for i in range(count):
        returns[i + 4] = math.log(closes[i] / previous[i])
    for i in range(count):
        fives[i] = ((returns[i] + returns[i + 1]) + (returns[i + 2] + returns[i + 3])) + returns[i + 4]


@_compiled
def _averages(state: FloatArray, history: FloatArray, columns: FloatArray, count: int) -> None:
    """The recursive averages of each bar, put into the columns of the features that `_oscillators` makes of
    them.

    Exponential averages are kept as distances from the close, d = (d - change of close) x (1 - k): on flat
    bars they die out with the range they are divided by, instead of stalling at a rounding error of the
    price.
    """
    closes, highs, lows = history[CLOSE, LONG - 1 :], history[HIGH, LONG - 1 :], history[LOW, LONG - 1 :]
    ranges = history[RANGE, LONG:]
    atr, gain, loss, plus, minus = state[ATR], state[GAIN], state[LOSS], state[PLUS], state[MINUS]
    fast, slow, signal = state[FAST], state[SLOW], state[SIGNAL]
    seen = int(state[SEEN])
    for i in range(count):
        t = seen + i
        close = closes[i + 1]
        change = close - closes[i]
        up, down = highs[i + 1] - highs[i], lows[i] - lows[i + 1]
        if t > 0:
            atr = _wilder(atr, ranges[i], t, 14)
            gain = _wilder(gain, change if change > 0.0 else 0.0, t, 14)
            loss = _wilder(loss, -change if change < 0.0 else 0.0, t, 14)
        if t > 13:
            plus *= 13.0 / 14.0
            minus *= 13.0 / 14.0
        plus += up if up > down and up > 0.0 else 0.0
        minus += down if down > up and down > 0.0 else 0.0
        if t > 25:
            fast = (fast - change) * (11.0 / 13.0)
            slow = (slow - change) * (25.0 / 27.0)
        else:
            rise = close - state[FIRST_CLOSE]
            slow += rise
            if t > 13:
                fast += rise
            if t == 25:
                fast = fast / 12.0 - rise
                slow = slow / 26.0 - rise
        macd = fast - slow
        if t > 33:
            signal += (macd - signal) * 0.2
        elif t == 33:
            signal = (signal + macd) / 9.0
        elif t > 24:
            signal += macd
        if t > 33 and atr < FLOOR * close:
            atr = gain = loss = plus = minus = fast = slow = macd = signal = 0.0
        columns[ATR_RATIO, i] = atr
        columns[RSI_NORM, i] = gain
        columns[RSI_SLOPE, i] = loss
        columns[ADX_NORM, i] = plus
        columns[ADX_DIRECTION, i] = minus
        columns[MACD_NORM, i] = macd
        columns[MACD_HIST, i] = signal
    state[ATR], state[GAIN], state[LOSS], state[PLUS], state[MINUS] = atr, gain, loss, plus, minus
    state[FAST], state[SLOW], state[SIGNAL] = fast, slow, signal


@_compiled
def _oscillators(state: FloatArray, history: FloatArray, columns: FloatArray, count: int) -> None:
    """Wilder's and Appel's features: ratios of the averages that `_averages` left in their columns."""
    atr, close = columns[ATR_RATIO], history[CLOSE, LONG:]
    macd, signal = columns[MACD_NORM], columns[MACD_HIST]
    for i in range(count):
        signal[i] = (macd[i] - signal[i]) / atr[i] if atr[i] > 0.0 else 0.0
    for i in range(count):
        macd[i] = macd[i] / atr[i] if atr[i] > 0.0 else 0.0
    for i in range(count):
        atr[i] /= close[i]
    plus, minus = columns[ADX_NORM], columns[ADX_DIRECTION]
    for i in range(count):
        moved = plus[i] + minus[i]
        minus[i] = (plus[i] - minus[i]) / moved if moved > 0.0 else 0.0
    adx, seen = state[ADX], int(state[SEEN])
    for i in range(count):
        if seen + i > 13:
            adx = _wilder(adx, abs(minus[i]), seen + i, 27)
            if adx < FLOOR:
                adx = 0.0
        plus[i] = adx
    state[ADX] = adx
    gain, loss, strength = columns[RSI_NORM], columns[RSI_SLOPE], history[STRENGTH, LONG:]
    for i in range(count):
        moved = gain[i] + loss[i]
        strength[i] = (gain[i] - loss[i]) / moved if moved > 0.0 else 0.0
    before = history[STRENGTH, LONG - 5 :]
    for i in range(count):
        gain[i] = strength[i]
    for i in range(count):
        loss[i] = (strength[i] - before[i]) / 2.0


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
    returns, fives, zero = history[RETURN], history[FIVE], columns[ZERO, :count]
    total, square, other = columns[FIRST, :count], columns[SECOND, :count], columns[THIRD, :count]
    for k in range(5):
        _copy(columns[RET_1 + k, :count], _ages(returns, k, k + 1, count))
    # Sums of 10, 20, 50 and 100 returns are sums of every fifth sum of five; the same for squares.
    _fill(total, 0.0)
    shorter = 0
    for k in range(4):
        longer = (5, 10, 20, 50)[k]
        _add(total, _ages(fives, shorter, longer - 4, count), zero, 5)
        _copy(columns[MOM_5 + k, :count], total)
        shorter = longer
    _add(total, _ages(fives, 50, 96, count), zero, 5)
    five_squares, recent = _ages(history[DRAFT_1], 0, 96, count), _ages(returns, 0, 100, count)
    for i in range(five_squares.size):
        a, b, c, d, e = recent[i], recent[i + 1], recent[i + 2], recent[i + 3], recent[i + 4]
        five_squares[i] = ((a * a + b * b) + (c * c + d * d)) + e * e
    _fill(square, 0.0)
    _add(square, _ages(history[DRAFT_1], 0, 46, count), zero, 5)
    for i in range(count):
        other[i] = math.sqrt(50.0 / square[i]) if square[i] > 0.0 else 0.0
    for k in range(4):
        momentum = columns[MOM_5 + k]
        root = math.sqrt((5.0, 10.0, 20.0, 50.0)[k])
        for i in range(count):
            momentum[i] = _clip(momentum[i] * other[i] / root, -ROOT_50, ROOT_50)
    _add(square, _ages(history[DRAFT_1], 50, 96, count), zero, 5)
    _reversion(history, columns, total, square, other, count)


@_compiled
def _reversion(
    history: FloatArray,
    columns: FloatArray,
    total: FloatArray,
    square: FloatArray,
    other: FloatArray,
    count: int,
) -> None:
    """1 - VR(5), from the sums of 100 returns (`total`) and of their squares (`square`); overwrites
    `other`."""
    fives, zero = _ages(history[FIVE], 0, 96, count), columns[ZERO, :count]
    values, spare = _ages(history[DRAFT_2], 0, 96, count), _ages(history[DRAFT_1], 0, 96, count)
    _fill(other, 0.0)
    _copy(values, fives)
    _add_96(other, values, spare, zero)
    for i in range(count):
        mean = total[i] / 100.0
        other[i] = 2400.0 * mean * mean - 10.0 * mean * other[i]
    for i in range(values.size):
        values[i] = fives[i] * fives[i]
    _add_96(other, values, spare, zero)
    reversion = columns[MEAN_REVERSION]
    for i in range(count):
        reversion[i] = square[i] - total[i] * (total[i] / 100.0)
    for i in range(count):
        # Where the mean is above a hundred deviations, too many digits cancel: sum about the mean instead,
        # which counts from one of the returns, so that equal ones have no variance at all.
        if reversion[i] < 1e-4 * square[i]:
            origin, mean, reversion[i], other[i] = history[RETURN, LONG + i], 0.0, 0.0, 0.0
            for j in range(i + 1, i + 1 + LONG):
                mean += history[RETURN, j] - origin
            mean = origin + mean / 100.0
            for j in range(i + 1, i + 1 + LONG):
                reversion[i] += (history[RETURN, j] - mean) * (history[RETURN, j] - mean)
            for j in range(i, i + 96):
                other[i] += (fives[j] - 5.0 * mean) * (fives[j] - 5.0 * mean)
    for i in range(count):
        ratio = 0.0
        if reversion[i] > 0.0:  # 99 and 5 (100 - 5 + 1)(1 - 5/100) = 456 make both variances unbiased
            ratio = _clip(1.0 - (other[i] / 456.0) / (reversion[i] / 99.0), LEAST_REVERSION, 1.0)
        reversion[i] = ratio


@_compiled
def _prices(history: FloatArray, columns: FloatArray, count: int) -> None:
    """Bollinger's band, choppiness and the efficiency ratio.

    Sums of price start from the bar's own close, so that equal closes give a deviation of exactly 0.
    """
    closes, close, zero = history[CLOSE], history[CLOSE, LONG : LONG + count], columns[ZERO, :count]
    mean, square = columns[FIRST, :count], columns[SECOND, :count]
    _fill(mean, 0.0)
    _add(mean, _ages(closes, 0, 20, count), close, 1)
    for i in range(count):
        mean[i] = close[i] + mean[i] / 20.0
    _fill(square, 0.0)
    _add_squares(square, _ages(closes, 0, 20, count), mean)
    position, width = columns[BB_POSITION], columns[BB_WIDTH]
    for i in range(count):
        band = 4.0 * math.sqrt(square[i] / 20.0)
        width[i] = band / mean[i]
        position[i] = 0.5
        if band > 0.0:
            position[i] = _clip(0.5 + (close[i] - mean[i]) / band, 0.5 - ROOT_19 / 4.0, 0.5 + ROOT_19 / 4.0)
    _channels(history, columns, count)
    top, bottom, total = columns[FIRST, :count], columns[SECOND, :count], columns[THIRD, :count]
    _fill(total, 0.0)
    _add(total, _ages(history[RANGE], 0, 14, count), zero, 1)
    choppiness = columns[CHOPPINESS]
    for i in range(count):
        choppiness[i] = 1.0
        if top[i] > bottom[i] and total[i] > 0.0:  # both or none, except in warm-up rows
            choppiness[i] = _clip(math.log(total[i] / (top[i] - bottom[i])) / LN_14, 0.0, 1.0)
    _fill(total, 0.0)
    _add(total, _ages(history[MOVE], 0, 20, count), zero, 1)
    efficiency, start = columns[TREND_STRENGTH], _ages(closes, 20, 21, count)
    for i in range(count):
        efficiency[i] = _clip(abs(close[i] - start[i]) / total[i], 0.0, 1.0) if total[i] > 0.0 else 0.0


@_compiled
def _channels(history: FloatArray, columns: FloatArray, count: int) -> None:
    """The place in the range of 20 bars; highest and lowest of 14 are left in columns FIRST and SECOND."""
    highs, lows = _ages(history[HIGH], 0, 20, count), _ages(history[LOW], 0, 20, count)
    tops, bottoms = _ages(history[DRAFT_1], 0, 20, count), _ages(history[DRAFT_2], 0, 20, count)
    tops_of_4, bottoms_of_4 = _ages(history[DRAFT_3], 0, 20, count), _ages(history[DRAFT_4], 0, 20, count)
    _extremes(highs, lows, tops, bottoms, 1)
    _extremes(tops[: count + 18], bottoms[: count + 18], tops_of_4, bottoms_of_4, 2)
    _extremes(tops_of_4[: count + 16], bottoms_of_4[: count + 16], tops, bottoms, 4)
    top, bottom = columns[FIRST, :count], columns[SECOND, :count]
    _extremes(tops[6 : count + 12], bottoms[6 : count + 12], top, bottom, 6)
    place, close = columns[RANGE_POSITION], history[CLOSE, LONG:]
    for i in range(count):
        highest = tops[i] if tops[i] > top[i] else top[i]
        lowest = bottoms[i] if bottoms[i] < bottom[i] else bottom[i]
        place[i] = (close[i] - lowest) / (highest - lowest) if highest > lowest else 0.5


@_compiled
def _volumes(history: FloatArray, columns: FloatArray, count: int) -> None:
    """Volume against its mean of 20 bars: short ratio, slope, deviation. Without volume: neutral values."""
    volumes, volume, zero = history[VOLUME], history[VOLUME, LONG : LONG + count], columns[ZERO, :count]
    mean, recent, total = columns[FIRST, :count], columns[SECOND, :count], columns[THIRD, :count]
    _fill(mean, 0.0)
    _add(mean, _ages(volumes, 0, 20, count), volume, 1)
    _fill(recent, 0.0)
    _add(recent, _ages(volumes, 0, 5, count), zero, 1)
    _fill(total, 0.0)
    for k in range(10):
        older, newer = _ages(volumes, 10 + k, 11 + k, count), _ages(volumes, 9 - k, 10 - k, count)
        for i in range(count):
            total[i] += (k + 0.5) * (newer[i] - older[i])
    ratio, trend, spike = columns[VOL_RATIO_5_20], columns[VOL_TREND], columns[VOL_SPIKE]
    for i in range(count):
        mean[i] = volume[i] + mean[i] / 20.0
        ratio[i] = _clip(recent[i] / 5.0 / mean[i], 0.0, 4.0) if mean[i] > 0.0 else 1.0
    # 665: sum of the squared distances of 20 bars from their middle; 3.5 = 21/6 scales to -1..1
    for i in range(count):
        trend[i] = _clip(total[i] / 665.0 / mean[i] * 3.5, -1.0, 1.0) if mean[i] > 0.0 else 0.0
    _fill(total, 0.0)
    _add_squares(total, _ages(volumes, 0, 20, count), mean)
    for i in range(count):
        spike[i] = 0.0
        if total[i] > 0.0:
            spike[i] = _clip((volume[i] - mean[i]) / math.sqrt(total[i] / 20.0), -ROOT_19, ROOT_19)


@_compiled
def _calendar(columns: FloatArray, time: TimeArray) -> None:
    """Time of day and day of week by whole seconds of the bar's timestamp in UTC; 1970 began on a
    Thursday."""
    sines, cosines, days = columns[HOUR_SIN], columns[HOUR_COS], columns[DAY_OF_WEEK]
    for i in range(time.size):
        seconds = time[i] // SECOND_NS
        second = seconds % 86_400
        minute = second // 60
        if second == 60 * minute:
            sines[i], cosines[i] = MINUTE_SINES[minute], MINUTE_COSINES[minute]
        else:
            sines[i], cosines[i] = math.sin(second * TURN), math.cos(second * TURN)
        days[i] = (seconds // 86_400 + 3) % 7 / 6.0


@_compiled
def _transpose(rows: FloatArray, columns: FloatArray) -> None:
    for i in range(rows.shape[0]):
        for feature in range(FEATURES):
            rows[i, feature] = columns[feature, i]


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
    room = min(time.size, BLOCK)
    history = np.empty((CHANNELS + 4, LONG + room))
    columns = np.empty((COLUMNS, room))
    _fill(columns[ZERO], 0.0)
    for start in range(0, time.size, BLOCK):
        stop = min(start + BLOCK, time.size)
        count = stop - start
        seen = int(state[SEEN])
        _tails(state, history, count, True)
        _bars(state, history, high[start:stop], low[start:stop], close[start:stop], volume[start:stop])
        _averages(state, history, columns, count)
        _oscillators(state, history, columns, count)
        _swings(state, history, columns, count)
        if seen + count > LONG:
            _returns(history, columns, count)
            _prices(history, columns, count)
            _volumes(history, columns, count)
            _calendar(columns, time[start:stop])
        warm = min(max(LONG - seen, 0), count)
        for i in range(start, start + warm):
            _fill(rows[i], math.nan)
        _transpose(rows[start + warm : stop], columns[:, warm:])
        _tails(state, history, count, False)
        state[SEEN] = seen + count
        state[DAY] = time[stop - 1] // DAY_NS
        state[NANOSECOND] = time[stop - 1] % DAY_NS
    return -1
