"""How a sizer's result holds up: under other costs, with late entries, in each regime and year.

Knows nothing of how sizes were chosen. All R are multiples of the planned risk of a 1x position.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from envs.observation import OBSERVATION_FIELDS
from envs.rewards import net_r, utility
from envs.signal_table import SignalTable
from evaluation.backtest import Path
from evaluation.comparison import NANOSECONDS_PER_DAY, Difference
from evaluation.resampling import interval

Floats = npt.NDArray[np.float64]

COST_FACTORS: Final = (0.0, 1.0, 2.0, 3.0)
VOLATILITY: Final = OBSERVATION_FIELDS.index("volatility_regime")
TREND: Final = OBSERVATION_FIELDS.index("trend_strength")
ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class CostStress:
    """The same sizes under costs of 0, 1, 2 and 3 times those assumed."""

    name: str
    net_r: tuple[float, ...]  # total at each of COST_FACTORS
    utility: tuple[float, ...]  # mean per signal at each
    ahead: tuple[
        float | None, ...
    ]  # mean utility less that of the reference at the same costs; None for itself
    break_even: float | None  # the factor at which the total is zero; None where it is not above zero at 0
    falls: bool  # whether no higher cost gave a higher total


def cost_stress(paths: Sequence[Path], table: SignalTable, reference: str) -> tuple[CostStress, ...]:
    """Every path at every factor; sizes stay as they were."""
    utilities = {path.name: [_at(path, table, factor)[1] for factor in COST_FACTORS] for path in paths}
    found = []
    for path in paths:
        totals = [float(np.sum(path.multiplier * _at(path, table, factor)[0])) for factor in COST_FACTORS]
        paid = totals[0] - totals[1]
        means = [float(np.mean(u)) for u in utilities[path.name]]
        base = [float(np.mean(u)) for u in utilities[reference]]
        same = path.name == reference
        found.append(
            CostStress(
                name=path.name,
                net_r=tuple(totals),
                utility=tuple(means),
                ahead=tuple(None if same else mine - its for mine, its in zip(means, base, strict=True)),
                break_even=totals[0] / paid if totals[0] > 0.0 and paid > 0.0 else None,
                falls=bool(np.all(np.diff(totals) <= ROUNDING)),
            )
        )
    return tuple(found)


def _at(path: Path, table: SignalTable, factor: float) -> tuple[Floats, Floats]:
    """Net R at the size taken, and the utility, under costs of `factor` times those assumed."""
    r = net_r(path.multiplier, table.gross_r, factor * table.cost_r, factor * table.impact_r)
    return r, utility(path.multiplier, r, table.k, table.base_risk)


@dataclass(frozen=True)
class Group:
    """Some of the signals: a year, a regime, a fold."""

    name: str
    signals: int
    days: int
    mean_utility: dict[str, float]  # by policy, R per signal
    versus: Difference | None  # the subject less the reference; None where they are one


def groups(
    paths: Sequence[Path],
    table: SignalTable,
    labels: Sequence[str],
    subject: str,
    reference: str,
    replications: int = 1_000,
    seed: int = 0,
) -> tuple[Group, ...]:
    """Mean utilities by label, in the order in which labels first occur; intervals as in a comparison."""
    utilities = {path.name: path.utility for path in paths}
    days = table.time // NANOSECONDS_PER_DAY
    names = np.array(labels)
    found = []
    for name in dict.fromkeys(labels):
        own = names == name
        versus = None
        if subject != reference:
            d = (utilities[subject] - utilities[reference])[own]
            versus = Difference(reference, float(np.mean(d)), *interval(d, days[own], replications, seed))
        means = {one: float(np.mean(values[own])) for one, values in utilities.items()}
        found.append(Group(name, int(own.sum()), len(np.unique(days[own])), means, versus))
    return tuple(found)


def years(table: SignalTable) -> list[str]:
    """The year (UTC) of each signal."""
    return [str(year) for year in table.time.astype("datetime64[ns]").astype("datetime64[Y]")]


def regimes(table: SignalTable) -> list[str]:
    """Turbulent: volatility in the top third of the training signals'. Else trending, where the trend is
    stronger than at the median of the tested signals; else calm.
    """
    volatility, trend = table.market[:, VOLATILITY], table.market[:, TREND]
    strong = trend > np.median(trend)
    return [
        "turbulent" if high else "trending" if moves else "calm"
        for high, moves in zip(volatility > 2.0 / 3.0, strong, strict=True)
    ]


def late(paths: Sequence[Path], late_paths: Sequence[Path]) -> Mapping[str, tuple[float, float]]:
    """By policy: mean utility per signal, and the same with every entry one bar later."""
    prompt = {path.name: float(np.mean(path.utility)) for path in paths}
    return {path.name: (prompt[path.name], float(np.mean(path.utility))) for path in late_paths}
