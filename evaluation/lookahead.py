"""Look-ahead analysis: does any value of a signal rule or feature depend on bars after its own?

Knows nothing of outcomes, sizes or how good a subject is. At each cut the bars after it are once left out and
once replaced by another market; whatever the subject said of bars up to the cut must keep every bit.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.lookahead_subject import Feature, Kind, Move, Subject, differ, moves, subject_of, times
from market.bars import Bars, iso
from market.errors import ConfigError, DataError
from market.sources import load
from signals.rules import Rule

CUTS = 20
WARMUPS = (200, 400, 800, 1600, 3200)  # bars up to the one looked at, for the analysis of starts
ENDS = 5  # bars looked at there
SPARSE = 0.25  # a column that changes on fewer bars than this share has events, worth cuts of their own
LEVEL = 3.0  # the market after a cut is this many times dearer or cheaper


@dataclass(frozen=True)
class Leak:
    """A column that moved at or before a cut, where it first did so.

    `row` is the bar's number, `before` the value with all bars, `after` the one with another future, and
    `difference` how far they are apart, relative to the larger (None where one is no number). `reach`: the
    subject saw at least that many bars ahead. `shown_by`: truncation, perturbation; `cuts`: at how many.
    """

    symbol: str
    column: str
    row: int
    timestamp: str
    before: str
    after: str
    difference: float | None
    reach: int
    shown_by: tuple[str, ...]
    cuts: int


@dataclass(frozen=True)
class StartDependence:
    """The largest relative difference of a column's last value when computed from the last `bars` bars only
    (None: one of both is no number).
    """

    column: str
    bars: int
    difference: float | None


@dataclass(frozen=True)
class LookaheadReport:
    """What the analysis of one subject saw: `cuts` and rows `compared` are counted over all markets; of
    `silent` columns nothing is proved, because they have no value.
    """

    subject: str
    kind: Kind
    markets: tuple[str, ...]
    bars: int
    cuts: int
    seed: int
    compared: int
    columns: tuple[str, ...]
    silent: tuple[str, ...]
    leaks: tuple[Leak, ...]
    starts: tuple[StartDependence, ...]

    @property
    def clean(self) -> bool:
        """No value moved. Dependence on the start is information and does not count."""
        return not self.leaks

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON types, `clean` included."""
        return {**asdict(self), "clean": self.clean}


def lookahead(data: str, subject: str, cuts: int = CUTS, seed: int = 0) -> LookaheadReport:
    """The analysis of a subject by name on a source that `market.sources.load` takes; see `analyse`."""
    made = subject_of(subject)  # first, so that a misspelt name does not wait for a large file
    return _analyse(load(data), made, cuts, seed)


def analyse(
    bars: Bars | Sequence[Bars], subject: Rule | Feature | str, *, cuts: int = CUTS, seed: int = 0
) -> LookaheadReport:
    """Compare a subject with itself at up to `cuts` cuts of each market, half of them where it says something
    new.

    A subject is a rule; a function from n `Bars` to n values, an array [n, columns] or a frame of n rows; or
    text: `features` (the built-in 31), a name that `signals.rules.rule` takes, or `plugin:MODULE:NAME` for a
    rule's class or a function. Raises ConfigError for one that cannot be had, and DataError, naming it, for
    one that raises, gives the wrong length, differs between two equal runs, or says nothing of these bars.
    """
    markets = (bars,) if isinstance(bars, Bars) else tuple(bars)
    return _analyse(markets, subject_of(subject), cuts, seed)


def print_table(report: LookaheadReport, console: Console) -> None:
    """Print the leaks, how far values depend on the start of history, and the verdict."""
    if report.leaks:
        console.print(Text("Values that moved with the future", style="italic"))
        for leak in report.leaks:
            # Sentences, because a narrow terminal would cut a table's cells: row and time must be readable.
            place = f" of {leak.symbol}, row {leak.row:,}, {leak.timestamp}: "
            change = f"{leak.before} became {leak.after} with another future"
            ahead = f"sees >= {leak.reach} bar{'s' * (leak.reach > 1)} ahead"
            shown = f"by {' and '.join(leak.shown_by)}, at {leak.cuts} cut{'s' * (leak.cuts > 1)}"
            console.print(Text.assemble((leak.column, "bold red"), place, change, f"; {ahead} ({shown})"))
    if report.starts:
        lengths = sorted({start.bars for start in report.starts})
        title = "Largest relative difference of a last value if history starts later (not a fault)"
        console.print(Text(title, style="italic"))
        table = Table(box=box.SIMPLE_HEAD)
        for heading in ("column", *(f"{bars:,} bars" for bars in lengths)):
            justify: Literal["left", "right"] = "left" if heading == "column" else "right"
            table.add_column(heading, justify=justify, overflow="fold")
        found = {(start.column, start.bars): start.difference for start in report.starts}
        for column in dict.fromkeys(start.column for start in report.starts):
            values = [found.get((column, bars), 0.0) for bars in lengths]
            shares = ("none" if value is None else f"{value:.1e}" if value else "same" for value in values)
            table.add_row(Text(column), *shares)
        console.print(table)
    what = f"{report.kind} {report.subject}: {len(report.columns)} columns, {report.compared:,} rows compared"
    where = (
        f"at {report.cuts} cuts of {report.bars:,} bars of {', '.join(report.markets)}, seed {report.seed}"
    )
    console.print(Text(f"{what} {where}", style="dim"))
    if report.silent:
        note = f"without any value, so nothing is proved of: {', '.join(report.silent)}"
        console.print(Text(note, style="yellow"))
    moved = ", ".join(dict.fromkeys(leak.column for leak in report.leaks))
    verdict = f"looks ahead: {moved}" if moved else "no look-ahead found"
    console.print(Text(verdict, style="bold red" if moved else "green"))


def perturbed(bars: Bars, cut: int, generator: np.random.Generator) -> Bars:
    """The same bars up to and with row `cut`; after it the same timestamps with another, valid market.

    Bodies, wicks and volumes are drawn from the bars' own, bodies upside down at random, with noise and at
    another price level.
    """
    count = len(bars) - cut - 1
    drawn = generator.integers(0, len(bars), count)
    top, bottom = np.maximum(bars.open, bars.close), np.minimum(bars.open, bars.close)
    # Without noise of its own a flat market would be replaced by a flat one.
    body = np.log(bars.close / bars.open)[drawn] * generator.choice((-1.0, 1.0), count)
    body += generator.normal(0.0, 0.01, count)
    upper = np.log(bars.high / top)[drawn] + generator.exponential(0.002, count)
    lower = np.log(bottom / bars.low)[drawn] + generator.exponential(0.002, count)
    level = LEVEL ** generator.choice((-1.0, 1.0)) * np.exp(generator.normal(0.0, 0.02, count))
    opened = bars.open[cut + 1 :] * level
    closed = opened * np.exp(body)
    after = {
        "open": opened,
        "high": np.maximum(opened, closed) * np.exp(upper),
        "low": np.minimum(opened, closed) * np.exp(-lower),
        "close": closed,
        "volume": bars.volume[drawn] * generator.uniform(0.2, 5.0, count),
    }
    columns = {name: np.append(getattr(bars, name)[: cut + 1], values) for name, values in after.items()}
    return Bars.from_arrays(bars.symbol, bars.time, **columns)


def _analyse(markets: tuple[Bars, ...], made: Subject, cuts: int, seed: int) -> LookaheadReport:
    for name, value, least in (("cuts", cuts, 1), ("seed", seed, 0), ("markets", len(markets), 1)):
        if value < least:
            raise ConfigError(name, value, f"give {least} or more")
    runs = [(bars, _baseline(made, bars)) for bars in markets]
    columns = tuple(dict.fromkeys(str(name) for _, table in runs for name in table.columns))
    spoken = {str(name) for _, table in runs for name in table.columns if table[name].notna().any()}
    if not spoken:
        mend = "nothing could be compared: give bars, and enough of them, on which it says something"
        raise DataError(f"{made.kind} {made.name}", "no value", mend)
    leaks: list[Leak] = []
    compared = done = 0
    for number, (bars, whole) in enumerate(runs):
        generator = np.random.default_rng([seed, number])
        found: dict[str, Leak] = {}
        for cut in _cuts(bars, whole, cuts, generator):
            known = whole[times(whole) <= bars.time[cut]]
            compared += len(known)
            done += 1
            here: dict[str, Leak] = {}
            for shown_by, other in _other_futures(bars, cut, generator):
                told = made.run(other)
                for move in moves(known, told[times(told) <= bars.time[cut]]):
                    leak = _leak(bars, cut, move, shown_by)
                    here[move.column] = _merged(here[move.column], leak) if move.column in here else leak
            for column, leak in here.items():
                seen = found.get(column)
                found[column] = replace(_merged(seen, leak), cuts=seen.cuts + 1) if seen else leak
        leaks += sorted(found.values(), key=lambda leak: (leak.row, leak.column))
    return LookaheadReport(
        subject=made.name,
        kind=made.kind,
        markets=tuple(bars.symbol for bars in markets),
        bars=sum(len(bars) for bars in markets),
        cuts=done,
        seed=seed,
        compared=compared,
        columns=columns,
        silent=tuple(name for name in columns if name not in spoken),
        leaks=tuple(leaks),
        starts=_starts(made, runs),
    )


def _baseline(made: Subject, bars: Bars) -> pd.DataFrame:
    """The subject on all bars, twice: one that differs from itself would seem to see the future."""
    if len(bars) < 3:
        raise DataError(f"{bars.symbol} rows", len(bars), "an analysis needs at least 3 bars")
    first, second = made.run(bars), made.run(bars)
    for move in moves(first, second):
        seen = f"{_text(move.before)}, then {_text(move.after)}"
        mend = "equal bars must give equal values: seed what is random, keep no state between calls"
        raise DataError(f"{made.kind} {made.name}, column {move.column}", seen, mend)
    made.check(bars)
    return first


def _cuts(bars: Bars, whole: pd.DataFrame, count: int, generator: np.random.Generator) -> list[int]:
    """At most `count` rows that have bars after them: the next to last, up to half where something happens,
    and the others evenly spread over the rows that have values.
    """
    last = len(bars) - 2
    row = np.searchsorted(bars.time, times(whole))
    if len(row) < len(bars):
        events = [row]  # signals
    else:
        changes = [1 + np.flatnonzero(differ(v.iloc[1:], v.iloc[:-1])) for _, v in whole.items()]
        events = [changed for changed in changes if len(changed) < SPARSE * len(bars)]
    events = [rows[rows <= last] for rows in events if np.any(rows <= last)]
    chosen = {last}
    # By turns, so that a column with many events does not crowd out one with few.
    order = generator.permutation(len(events))
    chosen |= {
        int(generator.choice(events[order[turn % len(order)]])) for turn in range(count // 2) if events
    }
    valued = row[whole.notna().any(axis=1).to_numpy(dtype=np.bool_)]
    first = int(valued[0]) if len(valued) and len(row) == len(bars) else 0
    spread = np.linspace(min(first, last), last, count - len(chosen) + 2)[1:-1]
    return sorted(chosen | set(spread.round().astype(np.int64).tolist()))


def _other_futures(bars: Bars, cut: int, generator: np.random.Generator) -> Iterator[tuple[str, Bars]]:
    yield "truncation", bars.window(0, cut + 1)
    yield "perturbation", perturbed(bars, cut, generator)


def _leak(bars: Bars, cut: int, move: Move, shown_by: str) -> Leak:
    row = int(np.searchsorted(bars.time, move.time))
    return Leak(
        symbol=bars.symbol,
        column=move.column,
        row=row,
        timestamp=iso(move.time),
        before=_text(move.before),
        after=_text(move.after),
        difference=_difference(move.before, move.after),
        reach=cut - row + 1,
        shown_by=(shown_by,),
        cuts=1,
    )


def _merged(seen: Leak, new: Leak) -> Leak:
    """Two findings about one column as one: the earlier row, the longer reach, both ways of showing it."""
    shown_by = tuple(name for name in ("truncation", "perturbation") if name in seen.shown_by + new.shown_by)
    return replace(new if new.row < seen.row else seen, reach=max(seen.reach, new.reach), shown_by=shown_by)


def _text(value: object) -> str:
    """A value as people read it, with all digits: two floats that differ look different."""
    return repr(float(value)) if isinstance(value, float | np.floating) else str(value)


def _difference(before: object, after: object) -> float | None:
    """|before - after| relative to the larger of both; None where that is no number."""
    kinds = (int, float, np.integer, np.floating)
    if not (isinstance(before, kinds) and isinstance(after, kinds)):
        return None
    size = max(abs(float(before)), abs(float(after)))
    found = abs(float(before) - float(after)) / size if size else 0.0
    return found if math.isfinite(found) else None


def _starts(made: Subject, runs: list[tuple[Bars, pd.DataFrame]]) -> tuple[StartDependence, ...]:
    """The columns whose value at some late bar depends on how many bars came before it."""
    largest: dict[tuple[str, int], float | None] = {}
    for bars, whole in runs:
        rows = np.searchsorted(bars.time, np.unique(times(whole)))
        late = rows[len(rows) // 2 :]
        ends = late[np.linspace(0, max(len(late) - 1, 0), min(ENDS, len(late))).round().astype(np.int64)]
        for end in ends.tolist():
            last = whole[times(whole) == bars.time[end]]
            for length in (length for length in WARMUPS if length <= end):
                try:
                    told = made.run(bars.window(end + 1 - length, end + 1))
                except DataError:  # it asks for more bars; on all of them it did run
                    told = last.iloc[:0]
                for move in moves(last, told[times(told) == bars.time[end]]):
                    key, found = (move.column, length), _difference(move.before, move.after)
                    known = largest.get(key, 0.0)
                    largest[key] = None if found is None or known is None else max(known, found)
    return tuple(StartDependence(column, length, value) for (column, length), value in largest.items())
