"""What a desk tells, given to Ray's metrics and to Serve's log once a second.

Knows nothing of what is told.
"""

import logging
import threading
from typing import Final, Protocol

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
        self._stopped = threading.Event()
        desk.telemetry.listener = self
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def count(self, metric: Metric, labels: Labels, by: float) -> None:
        """See `Listener`."""
        self._counters[metric].inc(by, self._tags(metric, labels))

    def observe(self, metric: Metric, labels: Labels, seconds: float) -> None:
        """See `Listener`."""
        self._histograms[metric].observe(seconds, self._tags(metric, labels))

    def gauge(self, metric: Metric, labels: Labels, value: float) -> None:
        """See `Listener`."""
        self._gauges[metric].set(value, self._tags(metric, labels))

    def line(self, moment: float, message: str, fields: Line) -> None:
        """See `Listener`. Made without looking for the caller, which would cost more than all the rest."""
        record = logging.LogRecord(SERVE.name, logging.INFO, "telemetry.py", 0, message, None, None)
        record.created, record.msecs = moment, moment % 1 * 1000
        record.__dict__ |= {
            "skip_context_filter": True,  # this thread has no request; Serve takes the mark out again
            "application": self._application,
            "writer": self._desk.writer,
            **fields,
        }
        if SERVE.isEnabledFor(logging.INFO):
            SERVE.handle(record)

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
            except Exception:  # whatever cannot be told must not end the telling
                SERVE.exception("telemetry")
            for handler in SERVE.handlers:
                handler.flush()  # Serve writes a thousand lines at a time, however long that takes
