"""Seeded synthetic bars with calm, trending and turbulent regimes. Knows no signals and promises no edge.

A Markov chain of regimes sets drift and volatility; within a regime volatility clusters through a few factors
that are renewed at different rates (the Markov-switching multifractal of Calvet and Fisher, "How to forecast
long-run volatility", Journal of Financial Econometrics 2, 2004). Each bar is a path of small steps, so that
its high and low are prices that the market passed through.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from market.bars import Bars
from market.errors import ConfigError

STEPS = 16  # per bar; the first step is the gap between a close and the next open
_START = 946_684_800_000_000_000  # 2000-01-01T00:00Z
_LAST = np.iinfo(np.int64).max
_MINUTE = 60_000_000_000
_CHUNK = 65_536  # bars whose paths are held in memory at once


class Regime(NamedTuple):
    """One state of the market: the bars it lasts on average; volatility and drift in base volatilities."""

    name: str
    lasts: float
    volatility: float
    drift: float


REGIMES = (
    Regime("calm", 300.0, 0.6, 0.0),
    Regime("trending", 120.0, 1.0, 0.12),
    Regime("turbulent", 60.0, 2.2, 0.0),
)
# Probability of the next regime, once the present one ends.
NEXT = np.array([[0.0, 0.7, 0.3], [0.6, 0.0, 0.4], [0.5, 0.5, 0.0]])
# Probability per bar that a volatility factor is drawn anew, and how far factors lie from 1.
RENEWAL = (0.002, 0.02, 0.1)
SPREAD = 0.4
GAP = 0.15  # volatility of the gap at the open, in units of the bar's


def regimes(
    bars: int, seed: int, minutes: int = 60, volatility: float = 0.002, symbol: str = "SYNTHETIC"
) -> Bars:
    """`bars` bars of `minutes` minutes from 2000-01-01 on, the same for the same arguments.

    `volatility` is the base standard deviation of a bar's log return. `ConfigError` where a number is out of
    its range.
    """
    longest = (_LAST - _START) // (_MINUTE * minutes) if minutes > 0 else 0
    for name, value, low, high in (
        ("minutes", minutes, 1, 7 * 24 * 60), ("bars", bars, 1, longest), ("seed", seed, 0, _LAST),
    ):  # fmt: skip
        if not low <= value <= high:
            raise ConfigError(f"synthetic {name}", value, f"give {low} to {high}")
    if not 0.0 < volatility <= 0.1:
        raise ConfigError("synthetic volatility", volatility, "give a number above 0, at most 0.1")
    generator = np.random.default_rng(seed)
    state, direction = _states(generator, bars)
    scale = volatility * np.array([regime.volatility for regime in REGIMES])[state]
    scale *= _clusters(generator, bars)
    drift = volatility * np.array([regime.drift for regime in REGIMES])[state] * direction
    time = _START + _MINUTE * minutes * np.arange(bars, dtype=np.int64)
    opened, high, low, closed = np.exp(_paths(generator, scale, drift))
    daytime = 1.0 + 0.5 * np.sin(2 * np.pi * ((time // _MINUTE) % 1440) / 1440)
    volume = 1e6 * daytime * (scale / volatility) * np.exp(0.3 * generator.standard_normal(bars))
    return Bars.from_arrays(symbol, time, opened, high, low, closed, np.rint(volume))


def _states(generator: np.random.Generator, bars: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Regime index and drift direction (+1/-1) of every bar: a chain of runs of geometric length."""
    states, lengths = [], []
    state, covered = 0, 0
    while covered < bars:
        length = int(generator.geometric(1.0 / REGIMES[state].lasts))
        states.append(state)
        lengths.append(length)
        covered += length
        state = int(np.searchsorted(np.cumsum(NEXT[state]), generator.random(), side="right"))
    direction = np.where(generator.random(len(states)) < 0.5, -1.0, 1.0)
    return np.repeat(states, lengths)[:bars], np.repeat(direction, lengths)[:bars]


def _clusters(generator: np.random.Generator, bars: int) -> NDArray[np.float64]:
    """A volatility factor per bar: a product of two-valued factors of mean 1, each redrawn at its rate."""
    product = np.ones(bars)
    for rate in RENEWAL:
        draw = np.cumsum(generator.random(bars) < rate)
        values = np.where(generator.random(int(draw[-1]) + 1) < 0.5, 1.0 - SPREAD, 1.0 + SPREAD)
        product *= values[draw]
    return product


def _paths(
    generator: np.random.Generator, scale: NDArray[np.float64], drift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log open, high, low, close [4, bars] from a path of `STEPS` steps per bar; prices start at 100."""
    bars = len(scale)
    found = np.empty((4, bars))
    level = np.log(100.0)
    for start in range(0, bars, _CHUNK):
        part = slice(start, min(start + _CHUNK, bars))
        step = generator.standard_normal((part.stop - start, STEPS))
        step[:, 0] *= GAP * scale[part]
        step[:, 1:] *= scale[part, None] / np.sqrt(STEPS - 1)
        step[:, 1:] += drift[part, None] / (STEPS - 1)
        path = np.cumsum(step, axis=1)
        # Where a bar starts: the closes of all bars before it.
        ends = level + np.cumsum(path[:, -1])
        path += np.concatenate(([level], ends[:-1]))[:, None]
        found[:, part] = path[:, 0], path.max(axis=1), path.min(axis=1), path[:, -1]
        level = float(ends[-1])
    return found
