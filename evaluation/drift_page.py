"""A drift check for people: a table on the terminal, and one HTML page that works without a network.

Knows nothing of how the figures were found. The page's own figures lie beside it as JSON.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.page import plain, write_page
from mlops.drift import DriftReport, Stream
from mlops.drift_limits import Finding

MOST_ROWS: Final = 8  # columns of one stream on the terminal: the drifted ones, and the nearest to drifting
WIDE: Final = 110  # terminal columns from which on the means are shown, too


def print_drift(report: DriftReport, console: Console) -> None:
    """Print the report: what is nearest to its limit in each stream, results, notes, alarms."""
    for stream in report.streams:
        console.print(_table(stream, console.width >= WIDE))
    if (found := report.performance) is not None:
        band = f"{found.band.low:+.3f} to {found.band.high:+.3f}"
        said = f"{found.mean:+.3f} R per signal against 1x; band of {found.band.window} signals {band}"
        console.print(f"performance  {said}")
    for note in report.notes:
        console.print(Text(note, style="dim"))
    for alarm in report.alarms:
        console.print(Text(f"ALARM  {alarm}", style="bold red"))
    if not report.alarm:
        console.print(Text(report.headline, style="green"))


def nearest(findings: Sequence[Finding]) -> list[Finding]:
    """The drifted columns first, then those nearest to their limits."""
    return sorted(findings, key=lambda finding: (not finding.drifted, -finding.ratio))


def write_drift(report: DriftReport, path: Path) -> None:
    """Write the page to `path` and its figures beside it as `.json`; each appears whole, the page last."""
    document = plain(report.to_dict())
    streams = [(stream, nearest(stream.findings)) for stream in report.streams]
    write_page(path, "drift", document, report=report, streams=streams)


def _table(stream: Stream, wide: bool) -> Table:
    shown = nearest(stream.findings)
    title = f"{stream.kind} of {stream.name}: newest {stream.window} of {stream.rows:,} rows beside "
    table = Table(
        title=f"{title}{stream.training_rows:,} of training",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        collapse_padding=True,
    )
    table.add_column("column", no_wrap=True)
    means = ("mean", "in training") if wide else ()
    for heading in ("of its limit", "KS", "PSI", "JS", "Wasserstein", *means):
        table.add_column(heading, justify="right", no_wrap=True)
    drifted = sum(finding.drifted for finding in shown)
    for finding in shown[: max(MOST_ROWS, drifted)]:
        measured = (f"{value:.3f}" for value in finding.statistics.values())
        spread = f"{finding.mean:.4g}", f"{finding.training_mean:.4g} ± {finding.training_sd:.2g}"
        style = "bold red" if finding.drifted else "yellow" if finding.ratio > 1.0 else None
        table.add_row(finding.name, f"{finding.ratio:.0%}", *measured, *spread[: len(means)], style=style)
    return table
