"""Seeded bars with gaps, wide ranges and flat stretches, so that every way out of a trade occurs."""

import numpy as np

from market.bars import Bars

HOUR = 3_600_000_000_000
START = 1_577_836_800_000_000_000  # 2020-01-01T00:00Z


def jumpy_bars(count: int, seed: int = 0, symbol: str = "JUMPY") -> Bars:
    """`count` hourly bars from a price of 100; one in eight opens with a gap, one in twelve does not move."""
    random = np.random.default_rng(seed)
    opened, high, low, close = (np.empty(count) for _ in range(4))
    last = 100.0
    for row in range(count):
        gap = random.normal(0.0, 0.03) if random.random() < 0.125 else 0.0
        opened[row] = last * np.exp(gap)
        move = 0.0 if random.random() < 0.08 else random.normal(0.0, 0.01)
        close[row] = opened[row] * np.exp(move)
        wick = np.abs(random.normal(0.0, 0.008, size=2)) * (move != 0.0)
        high[row] = max(opened[row], close[row]) * np.exp(wick[0])
        low[row] = min(opened[row], close[row]) * np.exp(-wick[1])
        last = close[row]
    time = START + np.arange(count, dtype=np.int64) * HOUR
    return Bars.from_arrays(symbol, time, opened, high, low, close, random.uniform(1.0, 9.0, count))


def bars_of(rows: list[tuple[float, float, float, float]], symbol: str = "HAND") -> Bars:
    """Hourly bars from (open, high, low, close)."""
    opened, high, low, close = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    time = START + np.arange(len(rows), dtype=np.int64) * HOUR
    return Bars.from_arrays(symbol, time, opened, high, low, close)
