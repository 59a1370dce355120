"""The sizers that a learned one must beat, the meta-label plug-in among them.

Each sees the same situation and goes through the same guardrail. Knows nothing of RLlib.
"""

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from envs.guardrails import SIZES
from envs.observation import OBSERVATION_FIELDS, Situation
from envs.rewards import expected_table
from market.compiled import compiled
from market.errors import DataError
from policies.decision import Policy

Floats = npt.NDArray[np.float64]

CONFIDENCE: Final = OBSERVATION_FIELDS.index("signal_confidence")
DRAWDOWN: Final = OBSERVATION_FIELDS.index("drawdown_pct")


def best_legal(values: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
    """The size of the highest-valued legal tier, float64[N]; ties go to the smaller size.

    Raises DataError for values float64[N, 6] and a mask bool[N, 6] of other shapes.
    """
    _check(values, mask)
    size = np.empty(len(values))
    _best_legal(values, mask, size)
    return size


def best_and_free(values: Floats, mask: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """`best_legal`, and what it would be if all tiers were legal."""
    _check(values, mask)
    legal, free = np.empty((2, len(values)))
    _best(values, mask, legal, free)
    return legal, free


def _check(values: Floats, mask: npt.NDArray[np.bool_]) -> None:
    if values.shape != mask.shape or values.shape[1] != len(SIZES):
        raise DataError(
            "values", (values.shape, mask.shape), f"give {len(SIZES)} values and a mask of each row"
        )


@compiled()
def _best_legal(values: Floats, mask: npt.NDArray[np.bool_], size: Floats) -> None:
    """Fill in `size`; where no tier is legal it is none."""
    for row in range(len(values)):
        best = 0
        for tier in range(1, len(SIZES)):
            better = not mask[row, best] or values[row, tier] > values[row, best]
            if mask[row, tier] and better:
                best = tier
        size[row] = SIZES[best]


@compiled()
def _best(values: Floats, mask: npt.NDArray[np.bool_], legal: Floats, free: Floats) -> None:
    """Fill in `legal` and `free`."""
    _best_legal(values, mask, legal)
    _best_legal(values, np.ones_like(mask), free)


def nearest_tier(multiplier: Floats) -> Floats:
    """Sizes snapped to the nearest tier, ties to the smaller, float64[N]."""
    return np.asarray(SIZES[np.argmin(np.abs(multiplier[:, None] - SIZES), axis=1)])


@dataclass(frozen=True)
class FixedSize:
    """The same multiple for every signal: 1x is the rule itself (fixed-fractional sizing)."""

    multiplier: float
    name: str
    snaps: bool = True

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        return np.full(len(situation.cap), self.multiplier)


@dataclass(frozen=True)
class FractionalKelly:
    """A share of the Kelly fraction of the last hundred settled signals (Kelly 1956; Thorp 2006); 1x until
    twenty are settled.
    """

    share: float | None = None  # 1/k of the utility if absent
    name: str = "1/k Kelly"
    snaps: bool = True

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        share = 1.0 / situation.k if self.share is None else self.share
        multiplier = share * situation.settled_kelly / situation.base_risk
        return nearest_tier(np.where(np.isnan(multiplier), 1.0, multiplier))


@dataclass(frozen=True)
class OptimalF:
    """The stake that would have compounded the last hundred settled signals most (Vince 1990); 1x until
    twenty are settled.
    """

    name: str = "optimal f"
    snaps: bool = True

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        multiplier = situation.settled_optimal / situation.base_risk
        return nearest_tier(np.where(np.isnan(multiplier), 1.0, multiplier))


@dataclass(frozen=True)
class VolatilityTarget:
    """Size against volatility: training median over current (Moreira and Muir 2017)."""

    name: str = "volatility target"
    snaps: bool = True

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        return nearest_tier(1.0 / np.maximum(situation.volatility_ratio, 1e-9))


@dataclass(frozen=True)
class ConfidenceLinear:
    """1.5x times the calibrated probability of a win."""

    name: str = "confidence-linear"
    snaps: bool = True

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        return nearest_tier(1.5 * situation.observation[:, CONFIDENCE].astype(np.float64))


@dataclass(frozen=True)
class DrawdownScaled:
    """1.5x scaled down as the drawdown nears its limit (Grossman and Zhou 1993; CPPI)."""

    name: str = "drawdown-scaled"
    snaps: bool = True

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        return nearest_tier(1.5 * (1.0 - situation.observation[:, DRAWDOWN].astype(np.float64)))


@dataclass(frozen=True)
class RandomLegal:
    """A legal tier drawn uniformly; the draw follows from the seed and the observation, so that a rerun is
    equal.
    """

    seed: int = 0
    name: str = "random legal"
    snaps: bool = True

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        random = np.random.default_rng([self.seed, zlib.crc32(situation.observation.tobytes())])
        return best_legal(random.random(situation.mask.shape), situation.mask)


@dataclass(frozen=True)
class RandomTier:
    """One of the six tiers drawn by `shares`, float[6] of sum 1, whatever the signal: what a sizer's mix of
    sizes earns when it is dealt out blindly. Drawn as `RandomLegal` draws.
    """

    shares: tuple[float, ...]
    seed: int = 0
    name: str = "random tier"
    snaps: bool = True

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        random = np.random.default_rng([self.seed, zlib.crc32(situation.observation.tobytes())])
        return np.asarray(SIZES[random.choice(len(SIZES), size=len(situation.cap), p=self.shares)])


@dataclass(frozen=True)
class PlugIn:
    """The meta-label plug-in: the calibrated outcome model and the best of six closed forms (Lopez de Prado
    2018, ch. 3, 10).
    """

    name: str = "meta-label plug-in"
    snaps: bool = True

    def values(self, situation: Situation) -> Floats:
        """See `ValuePolicy.values`."""
        return expected_table(
            situation.probability,
            situation.outcome_r,
            situation.cost_r,
            situation.impact_r,
            situation.k,
            situation.base_risk,
        )

    def pick(self, values: Floats, situation: Situation) -> tuple[Floats, Floats]:
        """See `ValuePolicy.pick`."""
        return best_and_free(values, situation.mask)

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        return best_legal(self.values(situation), situation.mask)


def baselines(seed: int = 0) -> tuple[Policy, ...]:
    """All of them, for one comparison."""
    return (
        FixedSize(1.0, "rule 1x"),
        FixedSize(0.5, "half"),
        FractionalKelly(1.0, "full Kelly"),
        FractionalKelly(0.5, "half Kelly"),
        FractionalKelly(),
        OptimalF(),
        VolatilityTarget(),
        ConfidenceLinear(),
        DrawdownScaled(),
        RandomLegal(seed),
        PlugIn(),
    )
