"""The gate's figures, measured: held-out comparison, the search's own luck, calibration, model card.

Knows nothing of thresholds. Each function gives one part of `gate.Figures`.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from evaluation.attribution import Attribution
from evaluation.gate import Calibration, HeldOut, Search, Skill
from policies.bundle import BundleMeta

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

REPLICATIONS = 1_000


class Sized(Protocol):
    """What a sizer made of n signals; a `backtest.Path` is one."""

    @property
    def utility(self) -> Floats:
        """Realised utility, float64[n], R."""
        ...

    @property
    def net_r(self) -> Floats:
        """Net R times the size, float64[n]."""
        ...


def held_out(
    candidate: Sized,
    champion: Sized,
    rule: Sized,
    plug_in: Sized,
    days: Integers,
    base_risk: float,
    *,
    plug_in_share: float = 0.5,
    replications: int = REPLICATIONS,
    seed: int = 0,
) -> HeldOut:
    """The candidate against the three on the same n signals; `days` int64[n] as in resampling.py.

    `champion`: the rule where no model is in production. `plug_in_share`: `Thresholds.plug_in_kept`. Bounds
    and drawdowns are None with fewer than 20 days.
    """
    raise NotImplementedError


def search(
    utility: Floats,
    champion: Floats,
    days: Integers,
    tried: int,
    selected: int,
    *,
    replications: int = REPLICATIONS,
    seed: int = 0,
) -> Search:
    """What a search proves, from realised utilities of its trials float64[n, trials] and of the champion
    float64[n] on the signals that chose the column `selected`.

    `tried`: the true number of trials; see tuning/trial_utilities.py. One configuration: one column, 1.
    """
    raise NotImplementedError


def calibration(
    p: Floats, won: Bools, champion: Floats | None, *, base_rate: float, seed: int = 0
) -> Calibration:
    """The outcome model's probabilities of a win, float64[n], on held-out signals, bool[n], beside the
    champion's on the same signals, float64[n].

    Without a champion: log loss beside that of `base_rate`, the training share of winners; ECE beside what a
    model that is calibrated perfectly shows in one of twenty samples of this size.
    """
    raise NotImplementedError


def card(meta: BundleMeta) -> dict[str, bool]:
    """Whether each of `gate.CARD_FIELDS` is filled in."""
    raise NotImplementedError


def skill(found: Attribution) -> Skill:
    """An attribution, for the gate's report."""
    return Skill(gained_r=found.gained_r, low=found.low, p_value=found.p_value)
