"""What a replica tells of its work: counts, times and log lines, gathered plainly until they are fetched.

Knows nothing of Ray or HTTP. What nobody listens to is not gathered.
"""

import hashlib
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, Protocol

SECONDS: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
# Of a size; the account, the bundle and the latency stand beside it.
LOGGED: Final = (
    "decision_id", "symbol", "side", "action", "multiplier", "rule_cap", "binding_rule", "source",
)  # fmt: skip

Labels = tuple[str, ...]
Line = dict[str, Any]
Size = tuple[str, Mapping[str, Any]]  # an answer, after its account's id


@dataclass(frozen=True, eq=False)  # compared by identity: it is a key for each count
class Metric:
    """One metric; each also has the label `application`. A histogram's are seconds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    what: str
    labels: Labels = ()


DECISIONS: Final = Metric(
    "ballast_decisions", "counter", "Sizes answered", ("action", "binding_rule", "source")
)
SIZING: Final = Metric(
    "ballast_sizing_seconds", "histogram", "From a checked request to its journaled answer", ("request",)
)
JOURNAL_WAIT: Final = Metric(
    "ballast_journal_wait_seconds", "histogram", "What an answer waits until its records are durable"
)
JOURNAL_QUEUE: Final = Metric(
    "ballast_journal_queue", "gauge", "Most requests that waited for one transaction of the journal lately"
)
FEATURES: Final = Metric(
    "ballast_features_seconds", "histogram", "From checked bars to their features", ("request",)
)
NARRATIVES: Final = Metric("ballast_narratives", "counter", "Narratives told", ("kind", "writer"))
NARRATIVE: Final = Metric(
    "ballast_narrative_seconds", "histogram", "From a checked request to its journaled narrative"
)
FALLBACKS: Final = Metric(
    "ballast_narrative_fallbacks", "counter", "Narratives that fell back to the template", ("reason",)
)
REFUSALS: Final = Metric("ballast_refusals", "counter", "Requests refused, by status code", ("code",))
NOT_TAKEN: Final = Metric(
    "ballast_deployment_refused", "gauge", "1 where the newest deployment was refused and the old one answers"
)
DRIFT_ALARM: Final = Metric("ballast_drift_alarm", "gauge", "1 where the newest drift check alarms")
DRIFT_CHECKED: Final = Metric(
    "ballast_drift_checked_timestamp_seconds", "gauge", "Time of the newest drift check"
)
DRIFT_COLUMNS: Final = Metric(
    "ballast_drift_drifted_columns", "gauge", "Columns above their limits in the newest check, all streams"
)
DRIFT_RATIO: Final = Metric(
    "ballast_drift_ratio", "gauge", "Largest drift statistic over its limit in the newest check"
)
DRIFT_WORSE: Final = Metric(
    "ballast_drift_performance_worse", "gauge", "1 where sizing does worse than before it was let out"
)
METRICS: Final = (
    DECISIONS, SIZING, JOURNAL_WAIT, JOURNAL_QUEUE, FEATURES, NARRATIVES, NARRATIVE, FALLBACKS, REFUSALS,
    NOT_TAKEN, DRIFT_ALARM, DRIFT_CHECKED, DRIFT_COLUMNS, DRIFT_RATIO, DRIFT_WORSE,
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What a metric stands at now: a gauge's value, or a counter's total so far."""

    metric: Metric
    value: float
    labels: Labels = ()


class Listener(Protocol):
    """Who takes what was gathered."""

    def count(self, metric: Metric, labels: Labels, by: float) -> None:
        """`by` more of a counter."""
        ...

    def observe(self, metric: Metric, labels: Labels, seconds: Sequence[float]) -> None:
        """So many more observations of a histogram."""
        ...

    def gauge(self, metric: Metric, labels: Labels, value: float) -> None:
        """Where a gauge stands."""
        ...

    def line(self, moment: float, message: str, fields: Line) -> None:
        """One line of the log, of `moment` (seconds since 1970)."""
        ...


@dataclass(frozen=True)
class _Told:
    """What notes come to."""

    counts: Counter[tuple[Metric, Labels]] = field(default_factory=Counter)
    seconds: defaultdict[tuple[Metric, Labels], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    lines: list[tuple[float, str, Line]] = field(default_factory=list)


class Telemetry:
    """What one replica gathers for its `listener`. Threads share it; a call only notes what happened."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self._noted: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._totals: dict[tuple[Metric, Labels], float] = {}  # of counters that are read, as last told

    def count(self, metric: Metric, *labels: str) -> None:
        """One more."""
        self._note(_counted, metric, labels)

    def took(self, metric: Metric, started: float, *labels: str) -> None:
        """What began at `started` (time.perf_counter) is done."""
        self._note(_took, metric, labels, time.perf_counter() - started)

    def sized(self, request: str, asked: Sequence[tuple[float, Sequence[Size]]]) -> None:
        """Sizes that are about to be answered: of each request when it began, see `took`, and its sizes."""
        self._note(_sized, time.time(), time.perf_counter(), request, asked)

    def refused(self, code: int, field: str) -> None:
        """A request that was refused; `field` must hold nothing that a client chose."""
        self._note(_refused, time.time(), code, field)

    def flush(self, readings: Iterable[Reading] = ()) -> None:
        """Tell the listener all that was noted since, and `readings`. For one thread."""
        if (listener := self.listener) is None:
            return
        told = _Told()
        while self._noted:
            tell, arguments = self._noted.popleft()
            tell(told, *arguments)
        for counted, number in told.counts.items():
            listener.count(*counted, number)
        for observed, seconds in told.seconds.items():
            listener.observe(*observed, seconds)
        for line in told.lines:
            listener.line(*line)
        for reading in readings:
            if reading.metric.kind == "gauge":
                listener.gauge(reading.metric, reading.labels, reading.value)
                continue
            key = reading.metric, reading.labels
            if (by := reading.value - self._totals.get(key, 0.0)) > 0:
                listener.count(*key, by)
            self._totals[key] = reading.value

    def _note(self, tell: Callable[..., None], *arguments: Any) -> None:
        if self.listener is not None:
            self._noted.append((tell, arguments))


def _counted(told: _Told, metric: Metric, labels: Labels) -> None:
    told.counts[metric, labels] += 1


def _took(told: _Told, metric: Metric, labels: Labels, seconds: float) -> None:
    told.seconds[metric, labels].append(seconds)


def _refused(told: _Told, moment: float, code: int, field: str) -> None:
    told.counts[REFUSALS, (str(code),)] += 1
    told.lines.append((moment, "refusal", {"code": code, "field": field}))


def _sized(
    told: _Told, moment: float, now: float, request: str, asked: Sequence[tuple[float, Sequence[Size]]]
) -> None:
    for started, sizes in asked:
        seconds = now - started
        told.seconds[SIZING, (request,)].append(seconds)
        latency_ms = round(1000.0 * seconds, 3)
        for account, size in sizes:
            told.counts[DECISIONS, (size["action"], size["binding_rule"], size["source"])] += 1
            bundle = size["bundle"]
            line = {name: size[name] for name in LOGGED}
            line["account"] = _nameless(account)
            line["bundle"] = None if bundle is None else bundle[:12]
            line["latency_ms"] = latency_ms
            told.lines.append((moment, "decision", line))


@lru_cache(1024)
def _nameless(account: str) -> str:
    """By which lines of one account are found together; whose it is stands in the journal."""
    return hashlib.sha256(account.encode()).hexdigest()[:12]
