"""The newest drift check of a home as gauges: read from the file it left, which is looked at now and then.

Knows nothing of how drift is found.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mlops.drift_metrics import read_metrics
from serving.telemetry import DRIFT_ALARM, DRIFT_CHECKED, DRIFT_COLUMNS, DRIFT_RATIO, DRIFT_WORSE, Reading

PERIOD: Final = 30.0  # seconds

# By their names in the file, where each has a value for every stream and column: the largest counts.
_TOLD: Final = {metric.name: metric for metric in (DRIFT_ALARM, DRIFT_CHECKED, DRIFT_RATIO, DRIFT_WORSE)}


class DriftReadings:
    """What was read last, over all streams and columns: a gauge of one that is gone would stand for good."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._due = clock, float("-inf")
        self._readings: list[Reading] = []

    def of(self, home: Path) -> list[Reading]:
        """The gauges of the newest check below `home`, at most `PERIOD` old; none where there was none."""
        if self._clock() >= self._due:
            self._due = self._clock() + PERIOD
            self._readings = _read(home)
        return self._readings


def _read(home: Path) -> list[Reading]:
    try:
        found = read_metrics(home)
    except (OSError, ValueError):  # there is none, or another program's file lies there
        return []
    readings = [Reading(metric, max(found[name])) for name, metric in _TOLD.items() if found.get(name)]
    if (columns := found.get(DRIFT_COLUMNS.name)) is not None:
        readings.append(Reading(DRIFT_COLUMNS, sum(columns)))
    return readings
