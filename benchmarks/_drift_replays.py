"""Stationary replays of real bars: training and live bars that differ in nothing but which weeks they are.

Knows nothing of drift. A market's history is cut into blocks of whole weeks; chance picks the training
blocks, which stay in order, and the live replay is made of the others, shuffled anew pass after pass. So
both come from the same years and regimes, no bar is in both, and within a block everything follows as it did.
"""

import itertools
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from features.pipeline import FeaturePipeline
from market.bars import Bars

Floats = npt.NDArray[np.float64]

BLOCK: Final = 125  # bars, about: half a year of days, a week of hours
TRAINING: Final = 0.7  # of the blocks
SETTLED: Final = 200  # rows whose recursive features still know their start
_DAY: Final = 86_400_000_000_000
_WEEK: Final = 7 * _DAY
_EPOCH_TO_MONDAY: Final = 3 * _DAY  # 1970 began on a Thursday
_TRAIL: Final = 20  # bars, of the volume that a block's own is scaled to


class Replay(NamedTuple):
    """Feature rows of the training bars and of the live replay."""

    training: Floats  # [n, 31]
    live: Floats  # [m, 31]


def replay(bars: Bars, seed: int, rows: int) -> Replay:
    """Training rows, and about `rows` live ones, of the market's blocks as `seed` deals them."""
    random = np.random.default_rng(seed)
    parts = blocks(bars)
    dealt = random.permutation(len(parts))
    count = round(TRAINING * len(parts))
    live: list[slice] = []
    while sum(part.stop - part.start for part in live) < rows + SETTLED:
        live += [parts[i] for i in random.permutation(dealt[count:])]
    matrix = FeaturePipeline().matrix
    training = joined(bars, [parts[i] for i in sorted(dealt[:count])])
    return Replay(matrix(training)[SETTLED:], matrix(joined(bars, live))[SETTLED : SETTLED + rows])


def in_order(bars: Bars) -> Replay:
    """The first part of the market's bars and the rest, as they came: the market did change in between."""
    rows = FeaturePipeline().matrix(bars)
    cut = round(TRAINING * len(rows))
    return Replay(rows[SETTLED:cut], rows[cut:])


def blocks(bars: Bars) -> list[slice]:
    """The whole weeks of the history, some in a row, until they have about `BLOCK` bars."""
    week = (bars.time + _EPOCH_TO_MONDAY) // _WEEK
    starts = np.flatnonzero(np.diff(week) > 0) + 1  # what is before the first full week is left out
    together = max(1, round(BLOCK / float(np.median(np.diff(starts)))))
    bounds = starts[::together]
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)]


def joined(bars: Bars, parts: list[slice]) -> Bars:
    """The parts one after another as one history: each goes on from the last close, at the last volume, in
    the week after."""
    pieces = []
    price, volume, week = 1.0, None, None
    for part in parts:
        piece = bars.window(part.start, part.stop)
        before = bars.window(max(0, part.start - _TRAIL), part.start)
        own_week = (int(piece.time[0]) + _EPOCH_TO_MONDAY) // _WEEK
        trail = float(before.volume.mean())
        louder = 1.0 if volume is None or trail <= 0.0 else volume / trail
        factor = price / float(before.close[-1])
        shift = 0 if week is None else (week - own_week) * _WEEK
        time, close = piece.time + shift, factor * piece.close
        prices = factor * piece.open, factor * piece.high, factor * piece.low, close
        pieces.append((time, *prices, louder * piece.volume))
        price = float(close[-1])
        volume = louder * float(piece.volume[-_TRAIL:].mean()) or None
        week = (int(time[-1]) + _EPOCH_TO_MONDAY) // _WEEK + 1
    return Bars.from_arrays(bars.symbol, *(np.concatenate(column) for column in zip(*pieces, strict=True)))
