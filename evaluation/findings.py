"""All that is found on one stretch of signals: who wins, whether by sizing, and how well it holds up.

Knows nothing of how policies were made, nor of pages.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

import numpy as np

from envs.guardrails import Limits
from envs.signal_table import SignalTable
from evaluation.attribution import Attribution, attribute
from evaluation.backtest import Path
from evaluation.breaches import breaches
from evaluation.comparison import NANOSECONDS_PER_DAY, Comparison, Difference, compare
from evaluation.resampling import interval
from evaluation.robustness import CostStress, Group, cost_stress, groups, late, regimes, years
from evaluation.walk_forward import WalkForward

RULE: Final = "rule 1x"
PLUG_IN: Final = "meta-label plug-in"
REPLICATIONS: Final = 1_000


@dataclass(frozen=True)
class Findings:
    """Every policy on the same signals; the subject is the one that is judged."""

    comparison: Comparison
    subject: str
    attribution: Attribution
    stress: tuple[CostStress, ...]
    late: dict[str, tuple[float, float]]  # mean utility by policy, entered promptly and one bar later
    never_entered: int  # of the late entries
    regimes: tuple[Group, ...]
    years: tuple[Group, ...]
    breaches: int  # decisions of the subject that a limit forbade

    def to_dict(self) -> dict[str, Any]:
        """Every figure as JSON types; None where undefined."""
        plain = asdict(self) | {"comparison": self.comparison.to_dict()}
        for name in ("regimes", "years"):
            for group, entry in zip(getattr(self, name), plain[name], strict=True):
                if group.versus is not None:
                    entry["versus"]["relation"] = group.versus.relation
        return plain


def find(
    paths: Sequence[Path],
    table: SignalTable,
    late_paths: Sequence[Path],
    late_table: SignalTable,
    subject: str,
    limits: Limits,
    session_days: float,
    symbols: Sequence[str] = (),
    seed: int = 0,
) -> Findings:
    """Everything of the backtests `paths` of `table` under `limits`; the rule at 1x is the reference.

    `late_paths`: those of `late_table`, the same signals entered one bar later, of whichever policies.
    """
    own = next(path for path in paths if path.name == subject)
    split = (subject, RULE, REPLICATIONS, seed)
    return Findings(
        comparison=compare(paths, table, RULE, plug_in=PLUG_IN, learned=subject, symbols=symbols, seed=seed),
        subject=subject,
        attribution=attribute(own, table, seed=seed),
        stress=cost_stress(paths, table, RULE),
        late=dict(late(paths, late_paths)),
        never_entered=int(np.sum(late_table.exit_time == late_table.time)),
        regimes=groups(paths, table, regimes(table), *split),
        years=groups(paths, table, years(table), *split),
        breaches=breaches(own, table, limits, session_days),
    )


@dataclass(frozen=True)
class SeedRow:
    """One seed over all folds."""

    seed: int
    mean_utility: float  # R per signal
    versus_rule: Difference
    versus_plug_in: Difference | None  # None for the plug-in itself


@dataclass(frozen=True)
class FoldRow:
    """One fold: what the subject gained on the rule, seed by seed."""

    number: int  # from 1 on
    first: str  # date of its first tested signal
    last: str
    trained: int  # trades learned from
    signals: int
    rule: float  # mean utility per signal of the rule at 1x, R
    plug_in: float
    gained: tuple[float, ...]  # the subject less the rule, by seed

    @property
    def median(self) -> float:
        """Of the seeds."""
        return median(self.gained)

    @property
    def worst(self) -> float:
        """Of the seeds."""
        return min(self.gained)


def by_seed(tested: WalkForward) -> tuple[SeedRow, ...]:
    """Every seed of the learned sizer; where nothing was learned, the plug-in as its only one."""
    rule, plug_in = _baseline(tested, RULE), _baseline(tested, PLUG_IN)
    days = tested.table.time // NANOSECONDS_PER_DAY

    def versus(path: Path, other: Path) -> Difference | None:
        if path is other:
            return None
        d = path.utility - other.utility
        return Difference(other.name, float(np.mean(d)), *interval(d, days, REPLICATIONS, 0))

    rows = []
    for seed, path in zip(tested.seeds or (0,), tested.learned or (plug_in,), strict=True):
        against = versus(path, rule)
        assert against is not None
        rows.append(SeedRow(seed, float(np.mean(path.utility)), against, versus(path, plug_in)))
    return tuple(rows)


def by_fold(tested: WalkForward) -> tuple[FoldRow, ...]:
    """Every fold of the learned sizer; where nothing was learned, of the plug-in."""
    rule, plug_in = _baseline(tested, RULE), _baseline(tested, PLUG_IN)
    dates = tested.table.time.astype("datetime64[ns]").astype("datetime64[D]")
    rows = []
    for number, trained in enumerate(tested.trained):
        own = tested.fold == number
        of_rule, of_plug_in = (float(np.mean(path.utility[own])) for path in (rule, plug_in))
        gained = tuple(
            float(np.mean((path.utility - rule.utility)[own])) for path in tested.learned or (plug_in,)
        )
        first, last = str(dates[own][0]), str(dates[own][-1])
        signals = int(own.sum())
        rows.append(FoldRow(number + 1, first, last, trained, signals, of_rule, of_plug_in, gained))
    return tuple(rows)


def _baseline(tested: WalkForward, name: str) -> Path:
    return next(path for path in tested.baselines if path.name == name)
