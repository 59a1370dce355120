"""The normaliser: mean and scale of each feature over the training rows. Knows nothing of which rows those
are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features.spec import FEATURE_NAMES
from market.errors import DataError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Maps a feature x to (x - mean) / scale: float64[31] each, fitted on `rows` training rows."""

    mean: FloatArray
    scale: FloatArray
    rows: int

    @classmethod
    def fit(cls, rows: ArrayLike) -> Self:
        """Mean and population deviation of training rows float64[n, 31]; a constant feature gets scale 1.

        Raises DataError for another shape, for no rows, and for a value that is not finite (a warm-up row).
        """
        matrix = _matrix(rows)
        if not len(matrix):
            raise DataError("training rows", 0, "give at least one row")
        if not np.isfinite(matrix).all():
            row, column = (int(at) for at in np.argwhere(~np.isfinite(matrix))[0])
            where = f"training row {row}, column {FEATURE_NAMES[column]}"
            raise DataError(where, float(matrix[row, column]), "fit on finite rows: leave out the warm-up")
        # Counted from the first row, so that equal values give a deviation of exactly 0.
        distance = matrix - matrix[0]
        centre = distance.mean(axis=0)
        deviation = np.sqrt(np.square(distance - centre).mean(axis=0))
        return cls(matrix[0] + centre, np.where(deviation > 0.0, deviation, 1.0), len(matrix))

    def apply(self, rows: ArrayLike) -> FloatArray:
        """Normalised rows float64[n, 31]; NaN (warm-up) stays NaN. Raises DataError for another shape."""
        return np.asarray((_matrix(rows) - self.mean) / self.scale, dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every number as an exact hexadecimal float."""
        numbers = {"mean": self.mean, "scale": self.scale}
        return {"rows": self.rows} | {
            name: [float(x).hex() for x in values] for name, values in numbers.items()
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """The normaliser that `to_dict` wrote; DataError for anything else."""
        if not isinstance(stored, Mapping) or set(stored) != {"rows", "mean", "scale"}:
            raise DataError("normaliser", stored, "needs exactly the keys rows, mean and scale")
        rows = stored["rows"]
        if type(rows) is not int or rows < 1:
            raise DataError("normaliser rows", rows, "give a whole number, at least 1")
        mean, scale = (_numbers(name, stored[name]) for name in ("mean", "scale"))
        if not (scale > 0.0).all():
            raise DataError("normaliser scale", float(scale.min()), "every scale must be above 0")
        return cls(mean, scale, rows)


def _matrix(rows: ArrayLike) -> FloatArray:
    matrix = np.asarray(rows, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != len(FEATURE_NAMES):
        raise DataError(
            "feature rows", matrix.shape, f"give one row of {len(FEATURE_NAMES)} features per bar"
        )
    return matrix


def _numbers(name: str, texts: object) -> FloatArray:
    try:
        if not isinstance(texts, list) or len(texts) != len(FEATURE_NAMES):
            raise ValueError
        numbers = np.array([float.fromhex(text) for text in texts])
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"normaliser {name}", texts, f"give {len(FEATURE_NAMES)} hexadecimal floats"
        ) from None
    if not np.isfinite(numbers).all():
        raise DataError(f"normaliser {name}", texts, "must be finite")
    return numbers
