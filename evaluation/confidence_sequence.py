"""An interval for a mean that holds at every moment at once, however often one looks and whenever one stops.

Knows nothing of what is averaged. The hedged capital process of Waudby-Smith and Ramdas 2024 (Estimating
means of bounded random variables by betting, section 4.4): a mean m is ruled out once a bettor against it,
who never looks ahead, has made 1 / alpha of its stake. Declares: x, n observations in [0, 1], each with
the same mean given those before it; m, a candidate mean; s, the variance guessed before each observation; L,
the bets.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

GRID: Final[Floats] = np.linspace(0.0, 1.0, 2_001)
LARGEST_BET: Final = 0.5  # of what would lose all
BLOCK: Final = 64  # observations at a time, so that memory does not grow with them


def sequence(x: Floats, low: float, high: float, alpha: float = 0.05) -> tuple[float, float]:
    """The 1 - alpha interval of the mean after all of x float64[n] in [low, high], in time order.

    The intersection of the intervals of every moment so far: it only ever narrows. (low, high) where n is 0.
    Raises ValueError for an x outside.
    """
    if len(x) and not (np.min(x) >= low and np.max(x) <= high):
        raise ValueError(f"give observations within {low:g} and {high:g}")
    scaled = (x - low) / (high - low)
    bets = _bets(scaled, alpha)
    alive = np.ones(GRID.size, dtype=np.bool_)
    up, down = np.zeros(GRID.size), np.zeros(GRID.size)  # log capital of those who bet on more and on less
    with np.errstate(divide="ignore"):
        most_up, most_down = LARGEST_BET / GRID, LARGEST_BET / (1.0 - GRID)
    for start in range(0, len(x), BLOCK):
        part, bet = scaled[start : start + BLOCK, None] - GRID, bets[start : start + BLOCK, None]
        ups = up + np.cumsum(np.log1p(np.minimum(bet, most_up) * part), axis=0)
        downs = down + np.cumsum(np.log1p(-np.minimum(bet, most_down) * part), axis=0)
        # Half of the stake each: the one that gains alone rules m out.
        alive &= (np.maximum(ups, downs) < np.log(2.0 / alpha)).all(axis=0)
        up, down = ups[-1], downs[-1]
    left = np.flatnonzero(alive)
    if not left.size:  # not one mean fits all that was seen: they had no common mean
        return low, high
    step = GRID[1]
    first, last = max(GRID[left[0]] - step, 0.0), min(GRID[left[-1]] + step, 1.0)
    return float(low + first * (high - low)), float(low + last * (high - low))


def _bets(x: Floats, alpha: float) -> Floats:
    """L float64[n], each from what came before it (theirs: equation 26)."""
    count = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (count + 1)
    spread = (0.25 + np.cumsum((x - mean) ** 2)) / (count + 1)
    s = np.concatenate([[0.25], spread])[: len(x)]
    return np.asarray(np.sqrt(2.0 * np.log(2.0 / alpha) / (s * count * np.log1p(count))))
