"""How far a feature row lies from what the policy was trained on.

Knows nothing of policies: it flags rows, and the guardrail decides what a flag means.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from market.compiled import compiled
from market.errors import DataError

Floats = npt.NDArray[np.float64]

QUANTILE: Final = 0.995  # of the training rows' own distances
RIDGE: Final = (
    0.05  # shrinks the correlation toward the identity: nearly collinear features keep finite distances
)


@dataclass(frozen=True)
class Support:
    """Mahalanobis distance to the training rows (Mahalanobis 1936), with a limit set on those rows."""

    mean: Floats  # [F]
    scale: Floats  # [F]
    precision: Floats  # [F, F], of the standardised rows
    limit: float

    def __post_init__(self) -> None:
        """Raises DataError for arrays that do not fit together."""
        count = len(self.mean)
        if self.scale.shape != (count,) or self.precision.shape != (count, count):
            seen = (self.mean.shape, self.scale.shape, self.precision.shape)
            raise DataError("support", seen, "give F means, F scales and F x F of precision")

    @classmethod
    def fit(cls, rows: Floats) -> Self:
        """From training rows, float64[n, F]; raises DataError under 2 F rows or on a non-finite number."""
        if len(rows) < 2 * rows.shape[1] or not np.all(np.isfinite(rows)):
            raise DataError("features", rows.shape, f"give at least {2 * rows.shape[1]} finite training rows")
        mean, scale = rows.mean(axis=0), rows.std(axis=0)
        scale = np.where(scale > 0.0, scale, 1.0)
        standard = (rows - mean) / scale
        correlation = standard.T @ standard / len(rows)
        precision = np.linalg.inv((1.0 - RIDGE) * correlation + RIDGE * np.eye(rows.shape[1]))
        unlimited = cls(mean, scale, precision, np.inf)
        return cls(mean, scale, precision, float(np.quantile(unlimited.distance(rows), QUANTILE)))

    def distance(self, rows: Floats) -> Floats:
        """Distance of each row, float64[N]; a non-finite row is infinitely far."""
        distance = np.empty(len(rows))
        fill_distances(np.ascontiguousarray(rows), self.mean, self.scale, self.precision, distance)
        return distance

    def outside(self, rows: Floats) -> npt.NDArray[np.bool_]:
        """Whether each row, float64[N, F], lies beyond the limit."""
        return self.distance(rows) > self.limit


@compiled()
def fill_distances(rows: Floats, mean: Floats, scale: Floats, precision: Floats, distance: Floats) -> None:
    """Fill in `distance`."""
    weighed = np.empty(len(mean))
    for row in range(len(rows)):
        standard = (rows[row] - mean) / scale
        weighed[:] = 0.0
        for i in range(len(mean)):
            own = standard[i]
            for j in range(len(mean)):
                weighed[j] += own * precision[i, j]
        squared = 0.0
        for j in range(len(mean)):
            squared += weighed[j] * standard[j]
        distance[row] = np.sqrt(max(squared, 0.0)) if np.isfinite(squared) else np.inf
