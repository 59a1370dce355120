"""What drift compares, before and now: feature rows of bars, signals with what the model said, and results.

Knows nothing of distances, limits or files. Declares: d, realised utility per signal of the model's size less
that of 1x, in R; r, net R per signal at 1x.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from envs.guardrails import LARGEST_SIZE, NONE, TIERS, Account, Limits, allowed, bound
from envs.observation import observe, review_left
from envs.rewards import net_r, utility
from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES, WARMUP
from market.bars import Bars
from policies.bundle import PolicyBundle
from signals.outcomes import Costs, label
from signals.rules import rule
from signals.signal_frame import checked
from signals.trades import Trades, pool

Floats = npt.NDArray[np.float64]

MARKET_WINDOW: Final = 300  # bars of one market
SIGNAL_WINDOW: Final = 100  # signals of all markets together
SIZE: Final = "size"
NO_FEATURES: Final = np.empty((0, len(FEATURE_NAMES)))


@dataclass(frozen=True)
class Signals:
    """n signals in order of time, of one market or several, and what the model said of each."""

    symbols: tuple[str, ...]
    symbol: npt.NDArray[np.int64]  # [n], indexes `symbols`
    features: Floats  # [n, 31], of the signal bars
    size: Floats  # [n], multiples of the base position
    values: Floats  # [n, 6], value of each size in R; [n, 0] of a policy that values no sizes

    def __len__(self) -> int:
        return len(self.size)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of `rows` after the 31 features."""
        return (SIZE, *(f"value_{tier}" for tier in TIERS[: self.values.shape[1]]))

    def of(self, symbols: tuple[str, ...]) -> Self:
        """The signals of these symbols alone."""
        numbers = [number for number, name in enumerate(self.symbols) if name in symbols]
        rows = np.isin(self.symbol, numbers)
        return type(self)(
            self.symbols, self.symbol[rows], self.features[rows], self.size[rows], self.values[rows]
        )

    def present(self) -> tuple[str, ...]:
        """The symbols that have a signal."""
        return tuple(self.symbols[number] for number in np.unique(self.symbol))


@dataclass(frozen=True)
class Results:
    """n settled signals in order of time."""

    d: Floats  # [n]
    r: Floats  # [n]


@dataclass(frozen=True)
class Observed:
    """What there is to check, from one source."""

    source: str
    markets: Mapping[str, Floats]  # by symbol, features of closed bars in order of time, float64[n, 31]
    signals: Signals | None
    results: Results | None
    notes: tuple[str, ...] = ()


def observe_bars(bundle: PolicyBundle, markets: tuple[Bars, ...], source: str) -> Observed:
    """What the bundle would have seen, said and got on these bars."""
    rows = {bars.symbol: FeaturePipeline().matrix(bars)[WARMUP - 1 :] for bars in markets}
    chosen, costs = rule(bundle.meta.rule), Costs(**bundle.meta.costs)
    trades = pool([label(bars, checked(chosen.generate(bars), bars), costs) for bars in markets])
    if not len(trades):
        return Observed(source, rows, None, None, (f"{bundle.meta.rule} gave no signal on these bars",))
    signals, results = answered(bundle, trades)
    return Observed(source, rows, signals, results)


def answered(
    bundle: PolicyBundle, trades: Trades, probability: Floats | None = None
) -> tuple[Signals, Results]:
    """What the bundle says of settled trades, the account having room for every size, and what came of it.

    `probability`: float64[n, J] of the outcome model where better is known than its own (training signals:
    by models that had not seen them). Sizes are those after the guardrail.
    """
    meta = bundle.meta
    table = bundle.table_of(trades, probability=probability)
    limits = Limits(base_risk=meta.base_risk)
    room = np.full(len(table), LARGEST_SIZE)
    fresh = Account(*(np.full(len(table), value) for value in (1.0, 1.0, 0.0, 0.0, 0.0)))
    left = review_left(table.time, meta.session_days)
    observation = observe(table.market, fresh, room, limits, left)
    situation = table.situation(slice(None), observation, allowed(room, limits), room)
    policy = bundle.policy()
    no_rule = np.full(len(table), NONE, dtype=np.int8)
    strange = table.out_of_distribution
    size = bound(
        policy.size(situation), room, no_rule, limits, snap=policy.snaps, out_of_distribution=strange
    ).multiplier
    # What PPO's network says of the tiers are log odds, and served answers do not show them.
    values = np.empty((len(table), 0)) if meta.algo == "ppo" else policy.values(situation)
    signals = Signals(
        trades.symbols, trades.symbol.astype(np.int64), trades.features, size, np.asarray(values, np.float64)
    )
    return signals, results(size, trades.gross_r, trades.cost_r, trades.impact_r, meta.k, meta.base_risk)


def results(
    size: Floats, gross_r: Floats, cost_r: Floats, impact_r: Floats, k: float, base_risk: float
) -> Results:
    """What sizes float64[n] brought beside 1x on the same settled signals."""
    at_1x = net_r(1.0, gross_r, cost_r, impact_r)
    own = utility(size, net_r(size, gross_r, cost_r, impact_r), k, base_risk)
    return Results(own - utility(1.0, at_1x, k, base_risk), at_1x)
