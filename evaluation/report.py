"""A comparison for people: a table on the terminal, and one HTML page that works without a network.

Knows nothing of how the figures were computed. The page's own figures lie beside it as JSON.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from envs.guardrails import RULES, SIZES, TIERS
from envs.signal_table import SignalTable
from evaluation.backtest import Path
from evaluation.comparison import Comparison, Difference, Row
from evaluation.metrics import drawdown
from evaluation.page import plain, write_page
from signals.calibration import calibration_report

Floats = npt.NDArray[np.float64]

MOST_POINTS: Final = 1_200  # of one curve on the page
CONFIDENCE_Z: Final = 1.959964  # two-sided 95 %
STYLE: Final = {"beats": "green", "loses to": "red", "is not distinguishable from": ""}


def _difference(difference: Difference | None) -> Text:
    if difference is None:
        return Text("-", style="dim")
    if difference.low is None:
        return Text(f"{difference.mean:+z.3f}")
    text = f"{difference.mean:+z.3f} [{difference.low:+z.3f}, {difference.high:+z.3f}]"
    return Text(text, style=STYLE[difference.relation])


class Column(NamedTuple):
    """A column of the terminal table, shown from a console width on."""

    least_width: int
    cell: Callable[[Row], str | Text]


COLUMNS: Final = {
    "sizer": Column(0, lambda row: row.figures.name),
    "utility": Column(0, lambda row: f"{row.figures.mean_utility:+z.3f}"),
    "vs {reference}": Column(0, lambda row: _difference(row.versus_reference)),
    "vs {plug_in}": Column(105, lambda row: _difference(row.versus_plug_in)),
    "skipped": Column(0, lambda row: f"{row.figures.skipped:.0%}"),
    "size": Column(130, lambda row: f"{row.figures.mean_multiplier:.2f}"),
    "net R": Column(130, lambda row: f"{row.figures.total_net_r:+z.1f}"),
    "won": Column(130, lambda row: "-" if row.figures.win_rate is None else f"{row.figures.win_rate:.0%}"),
    "equity": Column(0, lambda row: f"{row.figures.final_equity:.3f}"),
    "max DD": Column(0, lambda row: f"{row.figures.max_drawdown:.1%}"),
}


@dataclass(frozen=True)
class LearningCurve:
    """How a training run went."""

    steps: Floats  # [n], environment steps so far
    score: Floats  # [n]
    score_name: str = "utility per signal (R)"


def print_table(comparison: Comparison, console: Console) -> None:
    """Print the comparison, the learned sizer in bold, as many columns as fit, and the verdict below it."""
    title = f"{comparison.signals} signals, {comparison.first[:10]} to {comparison.last[:10]}"
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, collapse_padding=True
    )
    for name, column in COLUMNS.items():
        if console.width >= column.least_width:
            heading = name.format(reference=comparison.reference, plug_in=comparison.plug_in)
            table.add_column(heading, justify="left" if name == "sizer" else "right", no_wrap=True)
    for row in comparison.rows:
        cells = [column.cell(row) for column in COLUMNS.values() if console.width >= column.least_width]
        table.add_row(*cells, style="bold" if row.figures.name == comparison.learned else None)
    console.print(table)
    note = "Utility and its 95 % intervals are per signal, in R, the planned risk of a 1x position."
    console.print(Text(note, style="dim"))
    console.print(Text(comparison.verdict))
    for caveat in comparison.caveats:
        console.print(Text(caveat, style="yellow"))


def write_html(
    comparison: Comparison,
    paths: Sequence[Path],
    table: SignalTable,
    meta: Mapping[str, object],
    path: FilePath,
    *,
    learning: LearningCurve | None = None,
    reliability: tuple[Floats, npt.NDArray[np.bool_]] | None = None,
    predictors: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write the page to `path` and its figures beside it as `.json`; each appears whole, the page last.

    `paths`: the compared backtests of `table`; `meta`: provenance by name, any JSON types; `reliability`:
    stated probability of a win, float64[n], and whether it was one, bool[n], for signals the outcome model
    had not seen; `predictors`: by symbol, what `PredictorReport.to_dict` gives.
    """
    document = {
        "comparison": comparison.to_dict(),
        "sizes": dict(zip(TIERS, SIZES.tolist(), strict=True)),
        "provenance": plain(meta),
        "curves": {one.name: curve(one) for one in paths},
        "win_rate_at_1x": float(np.mean(table.gross_r - table.cost_r - table.impact_r > 0.0)),
        "learning": None if learning is None else plain(vars(learning)),
        "reliability": None if reliability is None else reliability_figures(*reliability),
        "predictors": None if not predictors else plain(predictors),
    }
    write_page(
        path,
        "report",
        document,
        scripts=("sizers.js",),
        comparison=comparison,
        rules=[name for name in RULES if any(name in row.figures.bound for row in comparison.rows)],
    )


def curve(path: Path) -> dict[str, list[float]]:
    """Equity and drawdown by time in ms, thinned so that every stretch keeps its ends and its extremes."""
    loss = drawdown(path.equity)
    kept = np.arange(len(path.equity))
    if len(kept) > MOST_POINTS:
        stretches = np.array_split(kept, MOST_POINTS // 4)
        picks = [(s[0], s[np.argmin(path.equity[s])], s[np.argmax(path.equity[s])], s[-1]) for s in stretches]
        kept = np.unique(np.array(picks))
    return {
        "time_ms": (path.time[kept] // 1_000_000).tolist(),
        "equity": np.round(path.equity[kept], 6).tolist(),
        "drawdown": np.round(loss[kept], 6).tolist(),
    }


def reliability_figures(p: Floats, won: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """The reliability diagram with Wilson's intervals (Wilson 1927) of each group's share of winners."""
    report = calibration_report(p, won)
    z = CONFIDENCE_Z
    share, n = report.happened, report.group
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return {**plain(vars(report)), "low": plain(centre - half), "high": plain(centre + half)}
