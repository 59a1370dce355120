"""How far a window may lie from the training rows before it counts as drift, found on training windows.

Knows nothing of what the columns are. Declares: n training rows, w rows of a window, F columns.

Textbook limits (a p-value, PSI above 0.2) take rows for independent, and flag windows cut from the training
data itself; here each column's limits come from such windows.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from market.errors import DataError
from mlops.drift_statistics import STATISTICS, Reference

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

QUANTILE: Final = 0.9  # of a statistic over training windows: enough windows lie above it to be sure of it
LEAST_WINDOWS: Final = 4  # that must fit side by side into the training rows
MOST_WINDOWS: Final = 100
STEPS: Final = 10  # checks in the time that fills a window anew
POWER: Final = np.array([1.0, 2.0, 1.0, 1.0])  # PSI grows with the square of a shift, the others with it
# Gaps that are nobody's concern, however steady a column was: the calendar repeats itself to the day.
NEGLIGIBLE: Final = np.array([0.05, 0.01, 0.05, 0.05])
SHOWN_LEVELS: Final = np.linspace(0.0, 1.0, 41)  # of the quantiles that a finding keeps for a chart


class Alarm(NamedTuple):
    """When columns alarm; `python -m benchmarks.drift --choose` shows why these."""

    margin: float = 2.4  # a limit is the 90 % quantile times this (PSI: its square)
    in_a_row: int = 3  # checks above a limit until a column has drifted
    columns: int = 1  # drifted columns until it is an alarm


ALARM: Final = Alarm()


class Finding(NamedTuple):
    """One column of the newest window beside the training rows."""

    name: str
    statistics: dict[str, float]
    limits: dict[str, float]
    ratio: float  # largest statistic over its limit, PSI by its root: 1 is the limit
    drifted: bool  # above the limit in as many checks in a row as it takes
    training_mean: float
    training_sd: float
    mean: float
    training_quantiles: list[float]  # at SHOWN_LEVELS
    quantiles: list[float]


@dataclass(frozen=True)
class Monitor:
    """The training rows of one stream, and the limits for windows of one length."""

    names: tuple[str, ...]
    reference: Reference
    limits: Floats  # [F, 4]
    window: int
    alarm: Alarm = ALARM

    @classmethod
    def calibrated(cls, names: tuple[str, ...], rows: Floats, window: int, alarm: Alarm = ALARM) -> Self:
        """From training rows float64[n, F] in order of time; DataError where n is below four windows.

        Each of up to 100 contiguous training windows is compared with the training rows outside it, as a
        fresh window would be.
        """
        return cls(names, Reference.of(rows), limits(training_distances(rows, window), alarm), window, alarm)

    @property
    def step(self) -> int:
        """Rows between two checks."""
        return max(1, self.window // STEPS)

    @property
    def needed(self) -> int:
        """Rows that a verdict takes."""
        return self.window + self.step * (self.alarm.in_a_row - 1)

    def check(self, rows: Floats) -> tuple[Finding, ...]:
        """What the newest window of float64[m, F] shows, column by column; DataError for too few rows."""
        if len(rows) < self.needed:
            raise DataError("rows to check", len(rows), f"give at least {self.needed}, or a smaller window")
        ends = [len(rows) - self.step * i for i in range(self.alarm.in_a_row)]
        distances = [self.reference.distances(rows[end - self.window : end]) for end in ends]
        ratios = np.stack([ratio(found, self.limits) for found in distances])
        drifted = np.asarray((ratios > 1.0).all(axis=0)).tolist()
        newest = rows[-self.window :]
        mean, quantiles = newest.mean(axis=0), np.quantile(newest, SHOWN_LEVELS, axis=0)
        known = self.reference.ordered
        training = known[:, np.round(SHOWN_LEVELS * (known.shape[1] - 1)).astype(np.int64)]
        return tuple(
            Finding(
                name=name,
                statistics=dict(zip(STATISTICS, distances[0][i].tolist(), strict=True)),
                limits=dict(zip(STATISTICS, self.limits[i].tolist(), strict=True)),
                ratio=float(ratios[0, i]),
                drifted=drifted[i],
                training_mean=float(known[i].mean()),
                training_sd=float(known[i].std()),
                mean=float(mean[i]),
                training_quantiles=training[i].tolist(),
                quantiles=quantiles[:, i].tolist(),
            )
            for i, name in enumerate(self.names)
        )

    def alarms(self, findings: tuple[Finding, ...]) -> bool:
        """Whether so many columns have drifted that it is an alarm."""
        return sum(finding.drifted for finding in findings) >= self.alarm.columns


def training_distances(rows: Floats, window: int) -> Floats:
    """The statistics of contiguous training windows beside the rows outside them: float64[windows, F, 4]."""
    if window < 1 or len(rows) < LEAST_WINDOWS * window:
        raise DataError("training rows", len(rows), f"windows of {window} need {LEAST_WINDOWS * window}")
    last = len(rows) - window
    count = min(MOST_WINDOWS, 1 + 4 * last // window)
    starts = np.unique(np.linspace(0, last, count).astype(np.int64))
    order = np.ascontiguousarray(np.argsort(rows, axis=0, kind="stable").T)
    ordered = np.take_along_axis(rows.T, order, axis=1)
    found = np.empty((len(starts), rows.shape[1], len(STATISTICS)))
    for i, start in enumerate(starts):
        outside = (order < start) | (order >= start + window)  # the same number of rows in every column
        others = Reference.in_order(ordered[outside].reshape(len(ordered), -1))
        found[i] = others.distances(rows[start : start + window])
    return found


def limits(distances: Floats, alarm: Alarm = ALARM) -> Floats:
    """The limits float64[F, 4] that training windows float64[windows, F, 4] give."""
    typical = np.quantile(distances, QUANTILE, axis=0)
    return np.asarray(np.maximum(typical * alarm.margin**POWER, NEGLIGIBLE))


def ratio(distances: Floats, limits: Floats) -> Floats:
    """The largest of the four statistics over their limits, PSI by its root: float64[..., F]."""
    return np.asarray(((distances / limits) ** (1.0 / POWER)).max(axis=-1))
