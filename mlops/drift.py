"""Does the model still fit? What is observed now beside the baseline of its training, as one report.

Knows nothing of where rows come from, nor of pages, webhooks and metrics.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from envs.guardrails import SIZES, TIERS, floor_to_tier
from market.errors import DataError
from mlops.drift_baseline import Baseline, NoBaseline
from mlops.drift_limits import Finding, Monitor
from mlops.drift_performance import Performance, performance
from mlops.drift_streams import MARKET_WINDOW, SIGNAL_WINDOW, Observed, Signals
from mlops.monitored import NAMES, NAMES_WITH_CHANGES, SETTLING, steadied, with_changes

Floats = npt.NDArray[np.float64]

NAMED: Final = 4  # drifted columns that an alarm names


@dataclass(frozen=True)
class Stream:
    """One stream's newest window beside its training rows."""

    kind: str  # "features" of a market's bars, or "predictions" on signals
    name: str  # the symbol, or "signals"
    rows: int  # observed
    training_rows: int
    window: int
    findings: tuple[Finding, ...]
    drifted: bool
    mix: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # tier: share in training, now


@dataclass(frozen=True)
class DriftReport:
    """What one check found; `alarms` is empty where the model still fits."""

    bundle: str | None  # digest; None where no model was found
    source: str
    alarms: tuple[str, ...]
    streams: tuple[Stream, ...] = ()
    performance: Performance | None = None
    baseline: bool = True  # whether there was one
    notes: tuple[str, ...] = ()
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def alarm(self) -> bool:
        """Whether somebody should look."""
        return bool(self.alarms)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What alarms, without its figures: while these stay the same, it is the same alarm."""
        found = [f"{stream.kind} of {stream.name}" for stream in self.streams if stream.drifted]
        found += ["performance"] if self.performance is not None and self.performance.worse else []
        return (*found, *sorted(alarm for alarm in self.alarms if alarm.startswith("no baseline")))

    @property
    def headline(self) -> str:
        """The check in one line."""
        if not self.alarms:
            return "No drift: what comes in still looks like the training data"
        more = f" (and {len(self.alarms) - 1} more)" if len(self.alarms) > 1 else ""
        return f"{self.alarms[0][0].upper()}{self.alarms[0][1:]}{more}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        plain = asdict(self)
        plain["streams"] = [
            entry | {"findings": [finding._asdict() for finding in stream.findings]}
            for entry, stream in zip(plain["streams"], self.streams, strict=True)
        ]
        if self.performance is not None:
            band = self.performance.band._asdict()
            plain["performance"] = self.performance._asdict() | {
                "band": band,
                "worse": self.performance.worse,
            }
        return {
            **plain,
            "created": self.created.isoformat(timespec="seconds"),
            "headline": self.headline,
            "alarm": self.alarm,
        }


def unwatched(bundle: str | None, source: str, reason: NoBaseline) -> DriftReport:
    """The report of a model that has no baseline: an alarm."""
    return DriftReport(bundle, source, (f"no baseline: {reason.mend}",), baseline=False)


def check(
    baseline: Baseline,
    observed: Observed,
    market_window: int = MARKET_WINDOW,
    signal_window: int = SIGNAL_WINDOW,
) -> DriftReport:
    """Compare the newest windows of everything observed with the baseline.

    DataError where nothing at all could be compared for want of rows; what could not while others could is an
    alarm where the training data is to blame, a note where only too little has been observed.
    """
    report = _Findings(alarms=[], notes=list(observed.notes), streams=[])
    for symbol, rows in observed.markets.items():
        _check_market(report, symbol, baseline.markets.get(symbol), rows, market_window)
    if observed.signals is not None:
        _check_signals(report, baseline.signals, observed.signals, signal_window)
    judged = _check_results(report, baseline, observed, signal_window)
    if not report.streams and judged is None and not report.alarms:
        raise DataError("rows to check", observed.source, f"bring more of them: {'; '.join(report.notes)}")
    return DriftReport(
        bundle=baseline.about.bundle,
        source=observed.source,
        alarms=tuple(report.alarms),
        streams=tuple(report.streams),
        performance=judged,
        notes=tuple(report.notes),
    )


@dataclass
class _Findings:
    """What a check has gathered so far."""

    alarms: list[str]
    notes: list[str]
    streams: list[Stream]


def _check_market(report: _Findings, symbol: str, training: Floats | None, rows: Floats, window: int) -> None:
    if training is None:
        report.alarms.append(f"no baseline for {symbol}: the model was trained without it")
        return
    known = with_changes(training)[SETTLING:]
    _compare(report, "features", symbol, (NAMES_WITH_CHANGES, known, with_changes(rows)), window)


def _check_signals(report: _Findings, training: Signals, now: Signals, window: int) -> None:
    unknown = [name for name in now.present() if name not in training.present()]
    if unknown:
        report.alarms.append(
            f"no baseline for signals of {', '.join(unknown)}: the model was trained without"
        )
    known, now = training.of(now.present()), now.of(training.present())
    if not len(known) or not len(now):
        return
    if known.names != now.names:
        report.notes.append("values of the sizes were not compared: one side has none")
    both = min(known.values.shape[1], now.values.shape[1])
    names = (*NAMES, *(known.names[: 1 + both]))
    _compare(report, "predictions", "signals", (names, _columns(known, both), _columns(now, both)), window)
    if report.streams and report.streams[-1].kind == "predictions":
        last = report.streams[-1]
        shares = zip(TIERS, _mix(known.size), _mix(now.size[-window:]), strict=True)
        mix = {tier: (before, after) for tier, before, after in shares}
        report.streams[-1] = Stream(**(vars(last) | {"mix": mix}))


def _compare(
    report: _Findings,
    kind: str,
    name: str,
    columns: tuple[tuple[str, ...], Floats, Floats],
    window: int,
) -> None:
    """Check one stream: names, training rows and rows observed of its columns."""
    names, known, now = columns
    try:
        monitor = Monitor.calibrated(names, known, window)
    except DataError as error:
        report.alarms.append(f"no baseline for {name}: {error.value} training rows, {error.mend}")
        return
    try:
        findings = monitor.check(now)
    except DataError as error:
        report.notes.append(f"{kind} of {name} were not checked: {error.value} rows, {error.mend}")
        return
    drifted = monitor.alarms(findings)
    report.streams.append(Stream(kind, name, len(now), len(known), window, findings, drifted))
    if drifted:
        worst = sorted((f for f in findings if f.drifted), key=lambda f: -f.ratio)
        told = ", ".join(f"{finding.name} {finding.ratio:.1f} x its limit" for finding in worst[:NAMED])
        more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
        report.alarms.append(f"{kind} of {name} have drifted: {told}{more}")


def _check_results(
    report: _Findings, baseline: Baseline, observed: Observed, window: int
) -> Performance | None:
    if observed.results is None:
        return None
    before, now = baseline.results, observed.results
    try:
        found = performance((before.d, before.r), (now.d, now.r), window)
    except DataError as error:
        report.notes.append(f"performance was not checked: {error.value} {error.field}, {error.mend}")
        return None
    if found.below:
        report.alarms.append(
            f"sizing brings {found.mean:+.3f} R per signal against 1x, below the band of "
            f"{found.band.low:+.3f} to {found.band.high:+.3f} R"
        )
    if found.changed is not None and found.worse:
        report.alarms.append(
            f"realised R fell from {found.r_before:+.3f} to {found.r_now:+.3f} per signal "
            f"(ADWIN, {found.changed} signals ago)"
        )
    return found


def _columns(signals: Signals, values: int) -> Floats:
    return np.concatenate(
        [steadied(signals.features), signals.size[:, None], signals.values[:, :values]], axis=1
    )


def _mix(size: Floats) -> list[float]:
    """Share of the sizes in each of the six tiers."""
    counts = np.bincount(floor_to_tier(size), minlength=len(SIZES))
    return [float(share) for share in counts / len(size)]
