"""Several sizers on the same signals: their paired differences, and the sentence that says who wins.

Knows nothing of how a policy was made, nor of tables and pages. Declares: d, a difference of realised
utility per signal, in R.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from envs.guardrails import MAX_DRAWDOWN, RULES
from envs.signal_table import SignalTable
from evaluation.backtest import Path
from evaluation.metrics import Figures, figures
from evaluation.resampling import LEAST_DAYS, drawdown_p95, interval
from market.errors import DataError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Relation = Literal["beats", "is not distinguishable from", "loses to"]

NANOSECONDS_PER_DAY: Final = 86_400_000_000_000
HELD_BACK: Final = 0.1  # share of sizes cut by the drawdown limit that a reader should know of


@dataclass(frozen=True)
class Difference:
    """A policy's utility less another's on the same signals, in R per signal."""

    other: str
    mean: float
    low: float | None  # 95 % interval; None with fewer than 20 days
    high: float | None

    @property
    def relation(self) -> Relation:
        """What the interval allows to be said: nothing while it holds zero."""
        if self.low is not None and self.low > 0.0:
            return "beats"
        if self.high is not None and self.high < 0.0:
            return "loses to"
        return "is not distinguishable from"

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:+z.3f} R, too few days for an interval"
        return f"{self.mean:+z.3f} R, 95 % interval {self.low:+z.3f} to {self.high:+z.3f}"


@dataclass(frozen=True)
class Row:
    """One policy in a comparison."""

    figures: Figures
    versus_reference: Difference | None  # None for the reference itself
    versus_plug_in: Difference | None  # None for the plug-in itself, and where it was not compared
    drawdown_p95: (
        float | None
    )  # 95th percentile of the max drawdown of resampled histories; None with few days


@dataclass(frozen=True)
class SymbolRow:
    """All policies on one symbol's signals."""

    symbol: str
    signals: int
    mean_utility: dict[str, float]  # by policy, R per signal
    total_net_r: dict[str, float]  # by policy


@dataclass(frozen=True)
class Comparison:
    """Policies on the same signals, costs and limits; the highest mean realised utility comes first."""

    rows: tuple[Row, ...]
    symbols: tuple[SymbolRow, ...]
    reference: str
    plug_in: str
    learned: str
    signals: int
    days: int  # UTC days with a signal
    first: str  # time of the first signal, ISO 8601
    last: str
    k: float  # of several the median
    base_risk: float

    def row(self, name: str) -> Row | None:
        """The policy of that name, or None."""
        return next((row for row in self.rows if row.figures.name == name), None)

    @property
    def headline(self) -> str:
        """Whether the learned sizer earned its place, in one line; without one, how the leader stands."""
        if self._against(self.learned):
            return _sentence(f"{self.learned} {_relations(self._against(self.learned))}")
        leader = self.rows[0].figures.name
        against = self._against(leader)
        stands = f" and {_relations(against)}" if against else ""
        return _sentence(f"no learned sizer was compared: {leader} has the highest mean utility{stands}")

    @property
    def verdict(self) -> str:
        """Who has the highest mean utility, and how the learned sizer stands with rule and plug-in."""
        leader = self.rows[0].figures
        text = (
            f"{leader.name} has the highest mean utility, {leader.mean_utility:+z.3f} R per signal "
            f"over {self.signals} signals on {self.days} days"
        )
        learned = self.row(self.learned)
        subject = leader if learned is None else learned.figures
        clauses = " and ".join(f"{d.relation} {d.other} ({d})" for d in self._against(subject.name))
        if not clauses:
            return _sentence(text)
        if subject is leader:
            return _sentence(f"{text}; it {clauses}")
        rank = [row.figures.name for row in self.rows].index(subject.name) + 1
        place = f"rank {rank} of {len(self.rows)} with {subject.mean_utility:+z.3f} R"
        return f"{_sentence(text)} {_sentence(f'{subject.name}, {place}, {clauses}')}"

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader must know before trusting the verdict."""
        found = []
        if self.days < LEAST_DAYS:
            found.append(
                f"{self.days} days with a signal are too few for intervals: {LEAST_DAYS} are needed."
            )
        for row in self.rows:
            share = row.figures.bound.get(RULES[MAX_DRAWDOWN], 0) / self.signals
            if row.figures.name in (self.reference, self.plug_in, self.learned) and share >= HELD_BACK:
                found.append(
                    f"The drawdown limit cut {100 * share:.0f} % of the sizes of {row.figures.name}: "
                    "differences with it are as much the limit's doing as the sizer's."
                )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Every figure as JSON types; None where undefined, never NaN."""
        plain = asdict(self) | {
            name: [asdict(one) for one in getattr(self, name)] for name in ("rows", "symbols")
        }
        for row, entry in zip(self.rows, plain["rows"], strict=True):
            for name in ("versus_reference", "versus_plug_in"):
                difference: Difference | None = getattr(row, name)
                if difference is not None:
                    entry[name]["relation"] = difference.relation
        return {"headline": self.headline, "verdict": self.verdict, "caveats": list(self.caveats), **plain}

    def _against(self, name: str) -> tuple[Difference, ...]:
        row = self.row(name)
        both = (row.versus_reference, row.versus_plug_in) if row is not None else ()
        return tuple(difference for difference in both if difference is not None)


def compare(
    paths: Sequence[Path],
    table: SignalTable,
    reference: str = "rule 1x",
    *,
    plug_in: str = "meta-label plug-in",
    learned: str = "RL sizer",
    symbols: Sequence[str] = (),
    replications: int = 1_000,
    seed: int = 0,
) -> Comparison:
    """Compare the backtests of `table`, one per policy, with the policy `reference` and with the plug-in.

    `symbols`: names for the indices in `table.symbol`. Raises DataError where a path is of other signals, a
    name is there twice, or the reference or a symbol's name is missing.
    """
    names = [path.name for path in paths]
    for path in paths:
        seen = f"{len(path.utility)} signals"
        if len(path.utility) != len(table):
            raise DataError(f"path {path.name!r}", seen, f"run it on these {len(table)} signals")
        if names.count(path.name) > 1:
            raise DataError("paths", path.name, "give every policy a name of its own")
    if reference not in names:
        raise DataError("reference", reference, f"name one of {', '.join(names)}")
    if symbols and int(table.symbol.max()) >= len(symbols):
        raise DataError("symbols", tuple(symbols), f"name all {int(table.symbol.max()) + 1} symbols")
    utilities = {path.name: path.utility for path in paths}
    days = table.time // NANOSECONDS_PER_DAY

    def versus(name: str, other: str) -> Difference | None:
        if other == name or other not in utilities:
            return None
        d = utilities[name] - utilities[other]
        low, high = interval(d, days, replications, seed)
        return Difference(other, float(np.mean(d)), low, high)

    rows = [
        Row(
            figures(path),
            versus(path.name, reference),
            versus(path.name, plug_in),
            drawdown_p95(path.net_r, days, table.base_risk, replications, seed),
        )
        for path in paths
    ]
    return Comparison(
        rows=tuple(sorted(rows, key=lambda row: (-row.figures.mean_utility, row.figures.name))),
        symbols=_by_symbol(paths, table, symbols),
        reference=reference,
        plug_in=plug_in,
        learned=learned,
        signals=len(table),
        days=len(np.unique(days)),
        first=_iso(table.time[0]),
        last=_iso(table.time[-1]),
        k=float(np.median(table.k)),
        base_risk=float(table.base_risk),
    )


def _by_symbol(paths: Sequence[Path], table: SignalTable, symbols: Sequence[str]) -> tuple[SymbolRow, ...]:
    rows = []
    for index in np.unique(table.symbol):
        own = table.symbol == index
        rows.append(
            SymbolRow(
                symbol=symbols[index] if symbols else f"symbol {index}",
                signals=int(own.sum()),
                mean_utility={path.name: float(np.mean(path.utility[own])) for path in paths},
                total_net_r={path.name: float(np.sum(path.net_r[own])) for path in paths},
            )
        )
    return tuple(rows)


def _relations(differences: Sequence[Difference]) -> str:
    relations = {d.relation for d in differences}
    if len(relations) > 1:
        return " and ".join(f"{d.relation} {d.other}" for d in differences)
    both = " or " if "is not distinguishable from" in relations else " and "
    return f"{differences[0].relation} {both.join(d.other for d in differences)}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _iso(nanoseconds: np.int64) -> str:
    return f"{np.datetime64(int(nanoseconds), 'ns').astype('datetime64[s]')}Z"
