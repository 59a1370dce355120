"""A drift report as Prometheus metrics in a file, as node_exporter's textfile collector reads them.

Knows nothing of how the figures were found. deploy/prometheus/ballast.rules.yaml alerts on them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from market.home import write_atomically

if TYPE_CHECKING:
    from mlops.drift import DriftReport

FILE: Final = Path("metrics") / "drift.prom"


def write_metrics(home: Path, report: "DriftReport") -> Path:
    """Write the report's metrics below `home`, whole or not at all; their path."""
    registry = CollectorRegistry()
    registry.register(_Report(report))
    path = home / FILE
    write_atomically(path, generate_latest(registry))
    path.chmod(0o644)  # another user's collector reads it
    return path


def read_metrics(home: Path) -> dict[str, list[float]]:
    """What the newest check left below `home`: the values of each metric by its name; OSError without one."""
    families = text_string_to_metric_families((home / FILE).read_text())
    return {family.name: [sample.value for sample in family.samples] for family in families}


class _Report:
    """One report, as prometheus_client collects it."""

    def __init__(self, report: "DriftReport") -> None:
        self.report = report

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every metric, each there in every file so that a rule on it never waits for its first sample."""
        report, bundle = self.report, (self.report.bundle or "none")[:12]
        yield _one("ballast_drift_alarm", "1 where the newest check alarms", bundle, report.alarm)
        yield _one("ballast_drift_baseline", "1 where the model has a baseline", bundle, report.baseline)
        checked = report.created.timestamp()
        yield _one("ballast_drift_checked_timestamp_seconds", "Time of the newest check", bundle, checked)
        drifted = _by_stream("ballast_drift_drifted_columns", "Columns above their limits, check after check")
        ratio = _by_stream("ballast_drift_ratio", "Largest drift statistic over its limit", "column")
        for stream in report.streams:
            place = [bundle, stream.kind, stream.name]
            drifted.add_metric(place, sum(finding.drifted for finding in stream.findings))
            for finding in stream.findings:
                ratio.add_metric([*place, finding.name], finding.ratio)
        yield drifted
        yield ratio
        difference = GaugeMetricFamily(
            "ballast_drift_performance_r",
            "Utility per signal against 1x in R: newest window, and the band it should lie in",
            labels=["bundle", "figure"],
        )
        worse = GaugeMetricFamily("ballast_drift_performance_worse", "1 where it is worse", labels=["bundle"])
        if (found := report.performance) is not None:
            for figure, value in (("mean", found.mean), ("low", found.band.low), ("high", found.band.high)):
                difference.add_metric([bundle, figure], value)
            worse.add_metric([bundle], found.worse)
        yield difference
        yield worse


def _one(name: str, what: str, bundle: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=["bundle"])
    family.add_metric([bundle], float(value))
    return family


def _by_stream(name: str, what: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, labels=["bundle", "kind", "stream", *labels])
