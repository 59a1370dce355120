"""How far stated probabilities are from what happened.

Knows nothing of the model that stated them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from market.errors import DataError

FloatArray = npt.NDArray[np.float64]

_SMALLEST = 1e-12


@dataclass(frozen=True)
class CalibrationReport:
    """Scores of n stated probabilities of an event, each beside that of always stating the base rate.

    `stated` and `happened` float64[B] are the reliability diagram: mean probability and share of events in B
    groups of (nearly) equal size, `group` int64[B] their sizes. `expected_calibration_error` is their mean
    distance, weighted by size.
    """

    rows: int
    base_rate: float
    expected_calibration_error: float
    brier: float
    base_brier: float
    log_loss: float
    base_log_loss: float
    stated: FloatArray
    happened: FloatArray
    group: npt.NDArray[np.int64]


def calibration_report(
    p: FloatArray, won: npt.NDArray[np.bool_], groups: int = 10, base_rate: float | None = None
) -> CalibrationReport:
    """Score `p` float64[n] in [0, 1] against `won` bool[n].

    ECE with groups of equal size (Naeini, Cooper & Hauskrecht 2015; equal widths would put most trades into
    one group), Brier score (Brier 1950) and log loss in nats. `base_rate` defaults to the share of `won`
    itself: a yardstick that has seen the answers. Raises DataError for other shapes, no rows, or a p that is
    no probability.
    """
    if p.ndim != 1 or p.shape != won.shape or p.size == 0:
        raise DataError("p and won", (p.shape, won.shape), "give two equally long arrays of one row or more")
    if not np.all((p >= 0.0) & (p <= 1.0)):
        row = int(np.argmin((p >= 0.0) & (p <= 1.0)))
        raise DataError(f"row {row}, p", float(p[row]), "give probabilities from 0 to 1")
    event = won.astype(np.float64)
    base = float(event.mean()) if base_rate is None else base_rate
    parts = np.array_split(np.argsort(p, kind="stable"), min(groups, p.size))
    stated = np.array([p[part].mean() for part in parts])
    happened = np.array([event[part].mean() for part in parts])
    group = np.array([part.size for part in parts], dtype=np.int64)
    return CalibrationReport(
        rows=p.size,
        base_rate=base,
        expected_calibration_error=float(np.sum(group * np.abs(stated - happened)) / p.size),
        brier=float(np.mean((p - event) ** 2)),
        base_brier=float(np.mean((base - event) ** 2)),
        log_loss=_log_loss(p, event),
        base_log_loss=_log_loss(np.full(p.size, base), event),
        stated=stated,
        happened=happened,
        group=group,
    )


def _log_loss(p: FloatArray, event: FloatArray) -> float:
    bounded = np.clip(p, _SMALLEST, 1.0 - _SMALLEST)
    return float(-np.mean(event * np.log(bounded) + (1.0 - event) * np.log(1.0 - bounded)))
