"""Fractional-Kelly log utility of a size, realised or expected under an outcome model.

Declares: m, multiplier of the base position; r, outcome in R (multiples of the planned risk); b, base risk as
a fraction of equity; k, Kelly divisor (risk aversion); p, outcome probabilities. Knows nothing of accounts or
limits.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from envs.guardrails import SIZES
from market.compiled import compiled
from market.errors import DataError

Floats = npt.NDArray[np.float64]

RUIN: Final = (
    0.01  # wealth below 1 % of the stake is counted as 1 %: log utility stays finite after a gap of any size
)


def net_r(
    multiplier: npt.ArrayLike, gross_r: npt.ArrayLike, cost_r: npt.ArrayLike, impact_r: npt.ArrayLike
) -> Floats:
    """Outcome in R after costs: fixed costs by the unit, slippage growing with the square root of the size.

    The square-root law of market impact: Almgren, Thum, Hauptmann and Li 2005 (there for a fraction of daily
    volume).
    """
    size = np.asarray(multiplier, dtype=np.float64)
    return np.asarray(np.asarray(gross_r) - np.asarray(cost_r) - np.asarray(impact_r) * np.sqrt(size))


def utility(multiplier: npt.ArrayLike, r: npt.ArrayLike, k: npt.ArrayLike, base_risk: float) -> Floats:
    """``log(1 + k b m r) / (k b)``, in R units; its argmax over m is 1/k of the Kelly fraction for any law of
    r.

    Kelly 1956; MacLean, Ziemba and Blazenko 1992.
    """
    scale = np.asarray(k, dtype=np.float64) * base_risk
    growth = scale * np.asarray(multiplier, dtype=np.float64) * np.asarray(r, dtype=np.float64)
    return np.asarray(np.log1p(np.maximum(growth, RUIN - 1.0)) / scale, dtype=np.float64)


def win_chance(probability: Floats, outcome_r: Floats, cost_r: Floats) -> Floats:
    """Calibrated probability that a signal pays after its own costs at 1x: float64[N].

    `probability`: float64[N, J]; `outcome_r`: float64[J] or float64[N, J], gross R of each bin; `cost_r`:
    float64[N], impact at 1x included.
    """
    chance = np.empty(len(probability))
    fill_win_chances(probability, _by_row(outcome_r, probability), cost_r, chance)
    return chance


@compiled()
def fill_win_chances(probability: Floats, gross_r: Floats, cost_r: Floats, chance: Floats) -> None:
    """Fill in `chance`; of what has fewer rows, they are taken in turn."""
    for row in range(len(probability)):
        gross, total = gross_r[row % len(gross_r)], 0.0
        for outcome in range(len(gross)):
            pays = 1.0 if gross[outcome] - cost_r[row % len(cost_r)] > 0.0 else 0.0
            total += probability[row, outcome] * pays
        chance[row] = np.minimum(np.maximum(total, 0.0), 1.0)


def realised_table(gross_r: Floats, cost_r: Floats, impact_r: Floats, k: float, base_risk: float) -> Floats:
    """Utility of all six sizes on what happened: float64[n, 6] from float64[n] each."""
    r = net_r(SIZES[None], gross_r[:, None], cost_r[:, None], impact_r[:, None])
    return utility(SIZES[None], r, k, base_risk)


def expected_table(
    probability: Floats,
    outcome_r: Floats,
    cost_r: Floats,
    impact_r: Floats,
    k: float | Floats,
    base_risk: float,
) -> Floats:
    """Utility of all six sizes expected under an outcome model: float64[n, 6]; see `expected_utility`."""
    return expected_utility(SIZES[None], probability, outcome_r, cost_r, impact_r, k, base_risk)


def expected_utility(
    multiplier: Floats,
    probability: Floats,
    outcome_r: Floats,
    cost_r: Floats,
    impact_r: Floats,
    k: float | Floats,
    base_risk: float,
) -> Floats:
    """Utility of sizes expected under an outcome model: float64[n, s] from sizes float64[n or 1, s].

    `probability`: float64[n, J] over outcome bins; `outcome_r`: float64[J] or float64[n, J], gross R of each
    bin; `k`: one number, or float64[n].
    """
    expected = np.empty((len(probability), multiplier.shape[1]))
    scale = np.asarray(k * base_risk, dtype=np.float64).reshape(-1)
    gross_r = _by_row(outcome_r, probability)
    fill_expected_utilities(multiplier, probability, gross_r, cost_r, impact_r, scale, expected)
    return expected


@compiled(error_model="numpy")
def fill_expected_utilities(
    multiplier: Floats,
    probability: Floats,
    gross_r: Floats,
    cost_r: Floats,
    impact_r: Floats,
    scale: Floats,
    expected: Floats,
) -> None:
    """Fill in the mean of `utility` at `net_r`; of what has fewer rows, they are taken in turn."""
    for row in range(len(expected)):
        gross, own_scale = gross_r[row % len(gross_r)], scale[row % len(scale)]
        cost, impact = cost_r[row % len(cost_r)], impact_r[row % len(impact_r)]
        for number, size in enumerate(multiplier[row % len(multiplier)]):
            total, slippage = 0.0, impact * np.sqrt(size)
            for outcome in range(len(gross)):
                growth = own_scale * size * (gross[outcome] - cost - slippage)
                total += probability[row, outcome] * (np.log1p(np.maximum(growth, RUIN - 1.0)) / own_scale)
            expected[row, number] = total


def _by_row(outcome_r: Floats, probability: Floats) -> Floats:
    """float64[J] of all rows as float64[1, J], and float64[N, J] as they are; DataError for another J."""
    if outcome_r.shape[-1] != probability.shape[1]:
        raise DataError("outcome_r", outcome_r.shape, f"give {probability.shape[1]} outcomes, as of p")
    return outcome_r[None] if outcome_r.ndim == 1 else outcome_r
