"""The figures of one backtest: what the sizes earned, what they risked, and which rules held them back.

Knows nothing of other sizers, of sampling error or of pages.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from envs.guardrails import NONE, RULES, TIERS, floor_to_tier
from evaluation.backtest import Path

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """One policy's figures over n signals; None where a figure is undefined.

    R is the planned risk of a 1x position. What is given per signal counts a skipped signal as zero, so that
    a policy pays for what it lets pass.
    """

    name: str
    signals: int
    skipped: float  # share of signals sized zero
    mean_multiplier: float
    mean_utility: float  # realised fractional-Kelly log utility per signal, R
    expected_utility: float  # the same under the outcome model, R
    total_net_r: float  # R after costs, times the size
    mean_net_r: float
    final_equity: float  # start = 1
    growth_bp: float | None  # log growth of equity per signal, basis points; None once equity is gone
    max_drawdown: float  # largest loss from a peak of the settled equity, as a fraction of that peak
    sharpe: float | None  # mean over standard deviation of net R per signal, not annualised; None if constant
    win_rate: float | None  # share of the trades taken that ended above zero; None where none was taken
    turnover: float  # sum of multipliers
    tiers: dict[str, float]  # share of each of the six sizes; a size between two counts as the lower one
    bound: dict[str, int]  # how often each rule of the guardrail changed a proposal; only those that did


def figures(path: Path) -> Figures:
    """The figures of a backtest."""
    n = len(path.multiplier)
    taken = path.multiplier > 0.0
    varies = n > 1 and np.ptp(path.net_r) > 0.0
    final = float(path.equity[-1])
    tiers = np.bincount(floor_to_tier(path.multiplier), minlength=len(TIERS)) / n
    rules = np.bincount(path.binding, minlength=len(RULES))
    return Figures(
        name=path.name,
        signals=n,
        skipped=float(np.mean(~taken)),
        mean_multiplier=float(np.mean(path.multiplier)),
        mean_utility=float(np.mean(path.utility)),
        expected_utility=float(np.mean(path.expected)),
        total_net_r=float(np.sum(path.net_r)),
        mean_net_r=float(np.mean(path.net_r)),
        final_equity=final,
        growth_bp=float(1e4 * np.log(final) / n) if final > 0.0 else None,
        max_drawdown=float(np.max(drawdown(path.equity))),
        sharpe=float(np.mean(path.net_r) / np.std(path.net_r, ddof=1)) if varies else None,
        win_rate=float(np.mean(path.net_r[taken] > 0.0)) if taken.any() else None,
        turnover=float(np.sum(path.multiplier)),
        tiers={name: float(share) for name, share in zip(TIERS, tiers, strict=True)},
        bound={RULES[i]: int(rules[i]) for i in np.flatnonzero(rules) if i != NONE},
    )


def drawdown(equity: Floats) -> Floats:
    """Loss from the highest equity so far, as a fraction of it, float64[n] >= 0."""
    return 1.0 - equity / np.maximum.accumulate(equity)
