"""What is monitored of the 31 features: each of them, made steadier where its level wanders in any market.

Knows nothing of distances or limits.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from features.spec import FEATURE_NAMES
from features.spec import index as feature_index

Floats = npt.NDArray[np.float64]

RETURNS: Final = tuple(feature_index(f"ret_{lag}") for lag in range(1, 6))
LEVELS: Final = ("atr_ratio", "bb_width")  # volatility: its level wanders for hundreds of bars
HALF_LIFE: Final = 100  # rows, of the trailing mean that a level's change is measured from
SETTLING: Final = 100  # rows until that mean has forgotten half of its start
NAMES: Final = FEATURE_NAMES
NAMES_WITH_CHANGES: Final = (*FEATURE_NAMES, *(f"{name}_change" for name in LEVELS))
_LEAST: Final = 1e-12  # a volatility of nothing at all still has a logarithm


def steadied(rows: Floats) -> Floats:
    """The features as monitored, float64[n, 31] from float64[n, 31], row by row.

    A lagged return is divided by the row's atr_ratio: raw returns look drifted whenever volatility moves,
    which atr_ratio tells already. The two volatility levels are logarithms.
    """
    found = rows.copy()
    atr_ratio = np.maximum(rows[:, feature_index("atr_ratio")], _LEAST)
    found[:, RETURNS] = rows[:, RETURNS] / atr_ratio[:, None]
    for name in LEVELS:
        found[:, feature_index(name)] = np.log(np.maximum(rows[:, feature_index(name)], _LEAST))
    return found


def with_changes(rows: Floats) -> Floats:
    """`steadied` rows of one market in order of time, and how far each volatility level stands above its own
    trailing mean: float64[n, 33].

    A level's natural swings are as wide as a real shift of it; its distance from where it was for the last
    hundred bars is steadier. The first 100 rows of a history are less sure of that mean.
    """
    found = steadied(rows)
    levels = found[:, [feature_index(name) for name in LEVELS]]
    return np.concatenate([found, levels - _trailing_mean(levels)], axis=1)


def _trailing_mean(levels: Floats) -> Floats:
    """Exponential mean of the rows before each row; it starts from the mean of the first rows."""
    weight = 1.0 - 0.5 ** (1.0 / HALF_LIFE)
    start = levels[:SETTLING].mean(axis=0)
    before = np.concatenate([start[None], levels[:-1]])
    state = (1.0 - weight) * start[None]
    filtered, _ = lfilter([weight], [1.0, weight - 1.0], before, axis=0, zi=state)
    return np.asarray(filtered)
