"""How much of the equity a discrete law of outcomes is worth, and the risk aversion k that makes the rule's
size the norm.

Knows nothing of fields, tiers or limits. Letters: f is the fraction of equity risked per 1 R, p the
probability of an outcome of r R, b the base risk (the fraction of equity that 1 x risks), k the Kelly divisor
of the utility log(1 + k b m R) / (k b).
"""

import math

import numpy as np
import numpy.typing as npt

from market.errors import DataError

FloatArray = npt.NDArray[np.float64]

FEWEST_EDGES = 30
DRAWDOWN_FLOOR = 0.8
DRAWDOWN_CHANCE = 0.05
# Halvings of the search interval: past 53 the two ends of a float64 interval in [0, 1] meet.
_HALVINGS = 55
# The most a bet may lose, as a share of equity: log growth is minus infinity at 1.
_LARGEST_LOSS = 1.0 - 1e-9


def kelly_fraction(probability: FloatArray, outcome_r: FloatArray, limit: float = 1.0) -> FloatArray:
    """The f that maximises sum(p log(1 + f r)), float64[N] within [0, limit] (Kelly 1956; Breiman 1961).

    `probability` float64[N, J] (rows sum to 1) over `outcome_r` float64[J] in R. The derivative sum(p r / (1
    + f r)) falls in f, so bisection finds its root; without an edge (sum(p r) <= 0) the answer is 0. f stops
    short of losing the whole equity in the worst outcome. Raises DataError for shapes that do not fit, or for
    values that are not finite.
    """
    if probability.ndim != 2 or outcome_r.shape != probability.shape[1:]:
        raise DataError(
            "probability shape", probability.shape, f"give N rows of {outcome_r.size} probabilities"
        )
    if not np.all(np.isfinite(probability)) or not np.all(np.isfinite(outcome_r)):
        raise DataError("probability or outcome_r", "a number that is not finite", "give finite numbers")
    if not 0.0 < limit < math.inf:
        raise DataError("limit", limit, "give a finite fraction above zero")
    worst = -float(outcome_r.min(initial=0.0))
    highest = min(limit, _LARGEST_LOSS / worst) if worst > 0.0 else limit
    low = np.zeros(len(probability))
    high = np.full(len(probability), highest)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        rising = np.sum(probability * outcome_r / (1.0 + middle[:, None] * outcome_r), axis=1) > 0.0
        low = np.where(rising, middle, low)
        high = np.where(rising, high, middle)
    return np.where(probability @ outcome_r > 0.0, 0.5 * (low + high), 0.0)


def drawdown_k(floor: float = DRAWDOWN_FLOOR, chance: float = DRAWDOWN_CHANCE) -> float:
    """The k at which P(equity ever falls below `floor` of its start) is about `chance`: (1 + ln chance / ln
    floor) / 2.

    Thorp (2006) in the diffusion limit, the same bound as Busseti, Ryu & Boyd (2016). Both arguments lie in
    (0, 1).
    """
    if not 0.0 < floor < 1.0 or not 0.0 < chance < 1.0:
        raise DataError("floor and chance", (floor, chance), "give shares between 0 and 1")
    return (1.0 + math.log(chance) / math.log(floor)) / 2.0


def calibrate_k(probability: FloatArray, outcome_r: FloatArray, base_risk: float) -> tuple[float, str]:
    """k, and in words how it was found, from cross-fitted probabilities float64[N, J] of training signals.

    1x-neutral: k = median(f | edge > 0) / b, so that the rule's own size is optimal for the median good
    signal (MacLean, Ziemba & Blazenko 1992: the utility's optimum is 1/k of Kelly). Never below 1: less would
    bet more than Kelly, which loses growth and adds risk. With fewer than 30 signals with an edge the median
    says too little, and k comes from the drawdown target.
    """
    if not 0.0 < base_risk < 1.0:
        raise DataError("base_risk", base_risk, "give the fraction of equity that 1x risks, between 0 and 1")
    fraction = kelly_fraction(probability, outcome_r)
    with_edge = fraction[fraction > 0.0]
    if with_edge.size < FEWEST_EDGES:
        target = f"P(equity < {DRAWDOWN_FLOOR:g} of its start) <= {DRAWDOWN_CHANCE:g}"
        return (
            drawdown_k(),
            f"drawdown target {target}: only {with_edge.size} of {fraction.size} signals have an edge",
        )
    neutral = float(np.median(with_edge)) / base_risk
    median = neutral * base_risk
    found = f"1x-neutral: median Kelly fraction {median:.4f} of {with_edge.size} signals with an edge"
    return (neutral, found) if neutral >= 1.0 else (1.0, f"{found}, raised to full Kelly")
