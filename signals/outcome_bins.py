"""The R-bins in which the outcome model thinks: where losses and wins of one market fall into groups.

Knows nothing of fields or probabilities. r are outcomes in R (gross less cost), J the number of bins.
"""

import numpy as np
import numpy.typing as npt

from market.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST_ROWS_PER_BIN = 20
SMALLEST_BIN_SHARE = 0.02
# Groups whose means differ by less (in R) are one outcome that costs or gaps have smeared.
SMALLEST_GAP = 0.25
_CANDIDATES = 100


def bin_edges(r: FloatArray) -> FloatArray:
    """Inner edges float64[J - 1] of the bins for outcomes r float64[N], J <= 6; bin j holds edges[j-1] < r <=
    edges[j].

    Zero is always an edge, so that the probability of a win is a sum of bins. Losses and wins are each cut
    into the three groups with the least variance within (Fisher 1958; on triple-barrier trades: stop-like,
    partial, flat | flat, partial, target-like), or into fewer where a group would hold less than 20 trades or
    2 % of all, or lie within 0.25 R of the next. Raises DataError unless there are both wins and losses.
    """
    losses, wins = np.sort(r[r <= 0.0]), np.sort(r[r > 0.0])
    if losses.size == 0 or wins.size == 0:
        raise DataError(
            "outcomes", f"{wins.size} wins, {losses.size} losses", "give trades that won and trades that lost"
        )
    fewest = max(FEWEST_ROWS_PER_BIN, int(SMALLEST_BIN_SHARE * r.size))
    return np.array([*_cuts(losses, fewest), 0.0, *_cuts(wins, fewest)])


def bins_of(r: FloatArray, edges: FloatArray) -> IntArray:
    """The bin int64[N] of each outcome: edges[j-1] < r <= edges[j]."""
    return np.searchsorted(edges, r, side="left").astype(np.int64)


def _cuts(values: FloatArray, fewest: int) -> list[float]:
    """Two, one or no cuts of sorted values float64[n] into groups of at least `fewest` with the least
    variance within."""
    size = values.size
    near = values[np.linspace(0, size - 1, _CANDIDATES).astype(np.int64)]
    # A cut lies between two different values: at either end of every run of equal ones that is considered.
    place = np.unique(
        np.concatenate((np.searchsorted(values, near, "left"), np.searchsorted(values, near, "right")))
    )
    place = place[(place >= fewest) & (place <= size - fewest)]
    # One cut is two of which the second closes an empty group at the end.
    first, second = np.meshgrid(place, np.append(place, size), indexing="ij")
    total = np.concatenate(([0.0], np.cumsum(values)))
    rows = np.stack((first, second - first, size - second))
    sums = np.stack((total[first], total[second] - total[first], total[size] - total[second]))
    means = sums / np.maximum(rows, 1)
    apart = (rows[1] >= fewest) & (means[1] - means[0] >= SMALLEST_GAP)
    apart &= (rows[2] == 0) | ((rows[2] >= fewest) & (means[2] - means[1] >= SMALLEST_GAP))
    # Least variance within the groups is the largest sum of rows x mean^2 between them.
    between = np.where(apart, np.sum(rows * means**2, axis=0), -np.inf)
    if not apart.any():
        return []
    best = np.unravel_index(int(np.argmax(between)), between.shape)
    cuts = {int(first[best]), int(second[best])} - {size}
    return [float((values[cut - 1] + values[cut]) / 2.0) for cut in sorted(cuts)]
