"""What a desk tells, given to Ray's metrics and to a log beside Serve's once a second.

Knows nothing of what is told.
"""

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, Protocol

import orjson
from ray.util.metrics import Counter, Gauge, Histogram

from serving.telemetry import METRICS, SECONDS, Labels, Line, Metric, Reading, Telemetry

PERIOD: Final = 1.0  # seconds
SERVE: Final = logging.getLogger("ray.serve")


class Telling(Protocol):
    """A desk: what it gathers, and what it reads anew each time."""

    @property
    def writer(self) -> str:
        """The replica's name in the journal."""
        ...

    @property
    def telemetry(self) -> Telemetry:
        """What it gathers."""
        ...

    def readings(self) -> list[Reading]:
        """Where its gauges stand."""
        ...


class RayTelemetry:
    """The listener of one desk, and the thread that has it told; `stop` tells the rest."""

    def __init__(self, desk: Telling, application: str) -> None:
        self._desk, self._application = desk, application
        self._counters, self._histograms, self._gauges = {}, {}, {}
        for metric in METRICS:
            known = metric.name, metric.what
            keys = ("application", *metric.labels)
            if metric.kind == "counter":
                self._counters[metric] = Counter(*known, tag_keys=keys)
            elif metric.kind == "histogram":
                self._histograms[metric] = Histogram(*known, boundaries=list(SECONDS), tag_keys=keys)
            else:
                self._gauges[metric] = Gauge(*known, tag_keys=keys)
        self._lines: list[str] = []
        self._log: RotatingFileHandler | None = None
        self._stopped = threading.Event()
        desk.telemetry.listener = self
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def count(self, metric: Metric, labels: Labels, by: float) -> None:
        """See `Listener`."""
        self._counters[metric].inc(by, self._tags(metric, labels))

    def observe(self, metric: Metric, labels: Labels, seconds: Sequence[float]) -> None:
        """See `Listener`."""
        observe, tags = self._histograms[metric].observe, self._tags(metric, labels)
        for each in seconds:
            observe(each, tags)

    def gauge(self, metric: Metric, labels: Labels, value: float) -> None:
        """See `Listener`."""
        self._gauges[metric].set(value, self._tags(metric, labels))

    def line(self, moment: float, message: str, fields: Line) -> None:
        """See `Listener`."""
        known = {
            "time": _text(moment),
            "message": message,
            "application": self._application,
            "writer": self._desk.writer,
        }
        self._lines.append(orjson.dumps(known | fields).decode())

    def stop(self) -> None:
        """Tell what is left, and no more. May be called again."""
        self._stopped.set()
        self._thread.join()

    def _tags(self, metric: Metric, labels: Labels) -> dict[str, str]:
        return {"application": self._application, **dict(zip(metric.labels, labels, strict=True))}

    def _run(self) -> None:
        going = True
        while going:
            going = not self._stopped.wait(PERIOD)
            try:
                self._desk.telemetry.flush(self._desk.readings())
                self._write()
            except Exception:  # whatever cannot be told must not end the telling
                SERVE.exception("telemetry")

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if self._log is None:
            self._log = _beside_serves_own()
        if lines and self._log is not None:
            self._log.handle(logging.LogRecord("ballast", logging.INFO, "", 0, "\n".join(lines), None, None))


@lru_cache(1)  # lines of one moment follow one another
def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _beside_serves_own() -> RotatingFileHandler | None:
    """A file beside Serve's log of this replica, turned over as that is; None outside of a replica.

    Through Serve's logger a line takes five times the processor's time of one among many (60 us, 11).
    """
    for handler in SERVE.handlers:
        if isinstance(own := getattr(handler, "target", None), RotatingFileHandler):
            file = Path(own.baseFilename).with_suffix(".ballast.log")
            return RotatingFileHandler(file, maxBytes=own.maxBytes, backupCount=own.backupCount, delay=True)
    return None
