"""How far a window of feature rows lies from reference rows: KS, PSI, JS and Wasserstein, feature by feature.

Knows nothing of limits, alarms or what the features are. Declares: n reference rows, w rows of the window, F
features; F_r and F_w, the two empirical distributions of one feature.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from market.errors import DataError

Floats = npt.NDArray[np.float64]

STATISTICS: Final = ("ks", "psi", "js", "wasserstein")
BINS: Final = 10
FEW_VALUES: Final = 12  # a feature with no more values than this has a bin for each of them
QUANTILES: Final = 200
SMOOTHING: Final = 0.5  # of a row per bin, on both sides: an empty bin is no infinite distance


@dataclass(frozen=True)
class Reference:
    """Reference rows, prepared once so that a window costs milliseconds."""

    ordered: Floats  # [F, n], each feature's values in rising order
    edges: tuple[Floats, ...]  # by feature, the upper edges of its bins but the last
    shares: tuple[Floats, ...]  # by feature, the reference's share of each bin
    quantiles: Floats  # [F, QUANTILES]
    scale: Floats  # [F], standard deviation; 1 where the feature is constant

    @classmethod
    def of(cls, rows: Floats) -> Self:
        """From float64[n, F]; DataError where there are no rows or a number is not finite."""
        _check(rows, None)
        return cls.in_order(np.ascontiguousarray(np.sort(rows, axis=0).T))

    @classmethod
    def in_order(cls, ordered: Floats) -> Self:
        """From float64[F, n], each feature's values in rising order."""
        spread = ordered.std(axis=1)
        edges = tuple(_edges(column) for column in ordered)
        shares = tuple(_shares(column, cut) for column, cut in zip(ordered, edges, strict=True))
        quantiles = _picks(ordered, (np.arange(QUANTILES) + 0.5) / QUANTILES)
        return cls(ordered, edges, shares, quantiles, np.where(spread > 0.0, spread, 1.0))

    def distances(self, window: Floats) -> Floats:
        """The four statistics of float64[w, F] for each feature, float64[F, 4] in the order of STATISTICS.

        KS: the largest gap between F_r and F_w (two-sample Kolmogorov-Smirnov). PSI: population stability
        index, and JS: Jensen-Shannon distance to base 2, both over the reference's deciles, or over its
        values where it has no more than a dozen. Wasserstein: the mean gap between 200 quantiles, in standard
        deviations of the reference. DataError as for `of`.
        """
        _check(window, len(self.ordered))
        ordered = np.ascontiguousarray(np.sort(window, axis=0).T)
        found = np.empty((len(self.ordered), len(STATISTICS)))
        found[:, 3] = np.abs(_picks(ordered, (np.arange(QUANTILES) + 0.5) / QUANTILES) - self.quantiles).mean(
            axis=1
        )
        found[:, 3] /= self.scale
        for row, known, values, edges, shares in zip(
            found, self.ordered, ordered, self.edges, self.shares, strict=True
        ):
            row[0] = _largest_gap(known, values)
            row[1], row[2] = _divergences(shares, _shares(values, edges))
        return found


def _largest_gap(known: Floats, values: Floats) -> float:
    """sup |F_r - F_w|: between two values of the window F_w is flat, so its values and the moments just
    before them suffice."""
    at = known.searchsorted(values, "right") / len(known) - values.searchsorted(values, "right") / len(values)
    before = known.searchsorted(values, "left") / len(known) - values.searchsorted(values, "left") / len(
        values
    )
    return float(max(np.abs(at).max(), np.abs(before).max()))


def _divergences(p: Floats, q: Floats) -> tuple[float, float]:
    """PSI and Jensen-Shannon distance of two distributions over the same bins, all shares positive."""
    psi = float(((q - p) * np.log(q / p)).sum())
    middle = (p + q) / 2.0
    divergence = (p * np.log2(p / middle)).sum() / 2.0 + (q * np.log2(q / middle)).sum() / 2.0
    return psi, float(np.sqrt(max(divergence, 0.0)))


def _edges(ordered: Floats) -> Floats:
    """The upper edge of every bin but the last: no two are equal, and no bin lies above all values."""
    first = np.concatenate(([True], ordered[1:] > ordered[:-1]))
    if np.count_nonzero(first) <= FEW_VALUES:
        values = ordered[first]
    else:
        values = np.unique(np.append(_picks(ordered[None], np.arange(1, BINS) / BINS), ordered[-1]))
    return values[:-1]


def _shares(ordered: Floats, edges: Floats) -> Floats:
    below = np.concatenate(([0], ordered.searchsorted(edges, "right"), [len(ordered)]))
    counts = np.diff(below) + SMOOTHING
    return np.asarray(counts / counts.sum())


def _picks(ordered: Floats, levels: Floats) -> Floats:
    """The values at the levels, float64[F, levels], of rows in rising order."""
    return np.asarray(ordered[:, (levels * ordered.shape[1]).astype(np.int64)])


def _check(rows: Floats, features: int | None) -> None:
    shaped = rows.ndim == 2 and len(rows) > 0 and features in (None, rows.shape[1])
    if not shaped or not np.isfinite(rows).all():
        wanted = "some" if features is None else str(features)
        seen = rows.shape if not shaped else "a number that is not finite"
        raise DataError("feature rows", seen, f"give rows of {wanted} finite features")
