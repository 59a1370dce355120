"""What the model says of signals, composed of the very functions that training used.

Knows nothing of the guardrail's verdict. Each signal is judged by itself: what is said of it is the same to
the last bit whatever others stand beside it. Every number is checked: where one is not finite there is no
advice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, nan
from typing import Final, NamedTuple, Self

import numba
import numpy as np
import numpy.typing as npt

from envs.observation import (
    OBSERVATION_FIELDS,
    Situation,
    market_observation,
    observe,
    review_left,
)
from envs.rewards import expected_utility, win_chance
from features.spec import index as feature_index
from policies.bundle import PolicyBundle
from policies.decision import ValuePolicy
from serving.schemas import Signal
from signals.fields import POOLED, VolatilityRanks, signal_fields
from signals.outcomes import Costs

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ATR_RATIO: Final = feature_index("atr_ratio")
CLOSE, STOP = 1, 3  # of the rows of `_prices`
DEFAULT_CONFIDENCE: Final = 0.5  # of a rule that states none, in training as here
NO_RANKS: Final = VolatilityRanks({POOLED: np.array([0.0, 1.0])})  # stands in where no bundle brings any


class Asked(NamedTuple):
    """N signals and all that is known about them."""

    signals: Sequence[Signal]
    features: Floats  # [N, 31]
    account: Floats  # [5, N], see envs.guardrails.account_columns
    limits: Floats  # [N, 9], see envs.guardrails.limit_rows
    largest: Floats  # [N], what the limits leave the account
    mask: Bools  # [N, 6], the tiers within it
    win_rates: Sequence[float | None]  # [N], recent

    def take(self, rows: Sequence[int]) -> Self:
        """Some of them."""
        chosen = list(rows)
        if len(chosen) == len(self.signals):
            return self
        return type(self)(
            [self.signals[row] for row in chosen],
            self.features[chosen],
            self.account[:, chosen],
            self.limits[chosen],
            self.largest[chosen],
            self.mask[chosen],
            [self.win_rates[row] for row in chosen],
        )


class Advice(NamedTuple):
    """What the model said of N signals."""

    faults: list[str | None]  # [N], why it has no valid say, None where it has; then nothing else counts
    wanted: Floats  # [N], before the limits
    proposed: Floats  # [N], among the legal tiers
    values: Floats | None  # [N, 6], R-utility; None of a policy that prefers sizes without valuing them
    outside: Bools  # [N]
    situation: Situation


def advise(bundle: PolicyBundle, policy: ValuePolicy, costs: Costs, asked: Asked) -> Advice:
    """What the bundle's policy says of each signal, every number checked."""
    meta, model = bundle.meta, bundle.outcome_model
    with np.errstate(all="ignore"):  # what overflows is caught as a number that is not finite
        prices = _prices(asked.signals)
        fields = _fields(asked, prices, bundle.ranks)
        probability = model.probability(fields)
        # The entry price is not known yet: the close of the signal bar stands in for it.
        close, stop = prices[CLOSE], prices[STOP]
        cost_r, impact_r = costs.in_r(close, np.abs(close - stop))
        confidence = win_chance(probability, model.outcome_r, cost_r + impact_r)
        win_rate = np.array([meta.prior_win_rate if rate is None else rate for rate in asked.win_rates])
        left = review_left(np.array([signal.time for signal in asked.signals]), meta.session_days)
        medians = meta.volatility_median
        median = np.array([medians.get(signal.symbol, medians[POOLED]) for signal in asked.signals])
        unknown = np.full(len(asked.signals), nan)
        situation = Situation(
            observation=observe(
                market_observation(fields, confidence, win_rate),
                asked.account,
                asked.largest,
                asked.limits,
                left,
            ),
            mask=asked.mask,
            cap=asked.largest,
            probability=probability,
            outcome_r=model.outcome_r,
            cost_r=cost_r,
            impact_r=impact_r,
            volatility_ratio=asked.features[:, ATR_RATIO] / median,
            settled_kelly=unknown,
            settled_optimal=unknown,
            k=meta.k,
            base_risk=meta.base_risk,
        )
        values = policy.values(situation)
        proposed = policy.pick(values, situation)
        wanted = proposed
        if np.count_nonzero(asked.mask) < asked.mask.size:
            wanted = policy.pick(values, replace(situation, mask=np.ones_like(asked.mask)))
        outside = bundle.support.outside(asked.features)
        faults = _faults(asked.features, situation, values, proposed, wanted)
    # What PPO's network says of the tiers are log odds, not utilities.
    return Advice(faults, wanted, proposed, None if meta.algo == "ppo" else values, outside, situation)


def _faults(
    features: Floats, situation: Situation, values: Floats, proposed: Floats, wanted: Floats
) -> list[str | None]:
    """Why the advice on each signal is none, None where it is one."""
    faults = np.zeros(len(features), dtype=np.int64)
    told = (features, situation.observation, situation.probability, values, proposed, wanted)
    _first_faults(*told, faults)
    return [FAULTS[code] for code in faults.tolist()]


FAULTS: Final = (
    None,
    "a feature is not finite",
    "the observation is not finite",
    "p is not finite",
    "a value is not finite",
    "the size is not finite",
    "the size is negative",
)


@numba.njit(cache=True, nogil=True)
def _first_faults(
    features: Floats,
    observation: npt.NDArray[np.float32],
    probability: Floats,
    values: Floats,
    proposed: Floats,
    wanted: Floats,
    faults: npt.NDArray[np.int64],
) -> None:
    """Fill in the first of FAULTS that each row has; `faults` come as zeros."""
    for row in range(len(faults)):
        if not np.isfinite(features[row]).all():
            faults[row] = 1
        elif not np.isfinite(observation[row]).all():
            faults[row] = 2
        elif not np.isfinite(probability[row]).all():
            faults[row] = 3
        elif not np.isfinite(values[row]).all():
            faults[row] = 4
        elif not (np.isfinite(proposed[row]) and np.isfinite(wanted[row])):
            faults[row] = 5
        elif min(proposed[row], wanted[row]) < 0.0:
            faults[row] = 6


def _prices(signals: Sequence[Signal]) -> Floats:
    """Side, close, level, stop, target and the rule's confidence of N signals, float64[6, N]."""
    rows = [
        (
            signal.direction,
            signal.price,
            signal.price if signal.entry is None else signal.entry,
            signal.stop,
            signal.take_profit,
            DEFAULT_CONFIDENCE if signal.confidence is None else signal.confidence,
        )
        for signal in signals
    ]
    return np.ascontiguousarray(np.array(rows, dtype=np.float64).T)


def _fields(asked: Asked, prices: Floats, ranks: VolatilityRanks) -> Floats:
    """The six signal fields, float64[N, 6]."""
    symbols = [signal.symbol for signal in asked.signals]
    side, close, level, stop, target, confidence = prices
    return signal_fields(symbols, asked.features, side, close, level, stop, target, confidence, ranks)


def known_without_model(asked: Asked) -> list[dict[str, float | None]]:
    """The observations as far as they are known without a bundle; what is unknown or not finite is None."""
    unknown = np.full(len(asked.signals), nan)
    with np.errstate(all="ignore"):
        seen = market_observation(_fields(asked, _prices(asked.signals), NO_RANKS), unknown, unknown)
        rows = observe(seen, asked.account, asked.largest, asked.limits, nan).tolist()
    return [_known(row, rate) for row, rate in zip(rows, asked.win_rates, strict=True)]


def _known(row: Sequence[float], win_rate: float | None) -> dict[str, float | None]:
    known: Mapping[str, float | None] = dict(zip(OBSERVATION_FIELDS, row, strict=True)) | {
        "volatility_regime": None,
        "win_rate_recent": win_rate,
    }
    return {name: value if value is not None and isfinite(value) else None for name, value in known.items()}


def utilities(multiplier: Floats, situation: Situation) -> Floats:
    """Utility in R expected of sizes float64[N] under the outcome model."""
    law = situation.probability, situation.outcome_r, situation.cost_r, situation.impact_r
    return expected_utility(multiplier[:, None], *law, situation.k, situation.base_risk)[:, 0]
