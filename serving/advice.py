"""What the model says of one signal, composed of the very functions that training used.

Knows nothing of the guardrail's verdict. Every number is checked: where one is not finite there is no advice.
"""

from dataclasses import replace
from math import isfinite, nan
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from envs.guardrails import TIERS, Account, Limits
from envs.observation import (
    OBSERVATION_FIELDS,
    Situation,
    market_observation,
    observe,
    review_window,
    session_left,
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
DEFAULT_CONFIDENCE: Final = 0.5  # of a rule that states none, in training as here
EVERY_TIER: Final = np.ones((1, len(TIERS)), dtype=np.bool_)
NO_RANKS: Final = VolatilityRanks({POOLED: np.array([0.0, 1.0])})  # stands in where no bundle brings any


class Advice(NamedTuple):
    """What the model said of one signal."""

    wanted: float  # before the limits
    proposed: float  # among the legal tiers
    values: Floats | None  # [6], R-utility; None of a policy that prefers sizes without valuing them
    outside: bool
    situation: Situation


class NoAdvice(Exception):
    """The model has no valid say; the message says why."""


def advise(
    bundle: PolicyBundle,
    policy: ValuePolicy,
    costs: Costs,
    signal: Signal,
    row: Floats,
    account: Account,
    limits: Limits,
    largest: Floats,
    mask: Bools,
    win_rate_recent: float | None,
) -> Advice:
    """What the bundle's policy says of `signal`, every number checked; NoAdvice where it has no valid say.

    `row`: float64[31]; `largest` float64[1] and `mask` bool[1, 6] are what `limits` leave the `account`.
    """
    meta, model = bundle.meta, bundle.outcome_model
    rows = row[None]
    with np.errstate(all="ignore"):  # what overflows is caught as a number that is not finite
        fields = _fields(signal, rows, bundle.ranks)
        probability = model.probability(fields)
        # The entry price is not known yet: the close of the signal bar stands in for it.
        cost_r, impact_r = costs.in_r(np.array([signal.price]), np.array([abs(signal.price - signal.stop)]))
        confidence = win_chance(probability, model.outcome_r, cost_r + impact_r)
        win_rate = meta.prior_win_rate if win_rate_recent is None else win_rate_recent
        seen = market_observation(fields, confidence, np.array([win_rate]))
        _, elapsed = review_window(np.array([signal.time]), meta.session_days)
        median = meta.volatility_median.get(signal.symbol, meta.volatility_median[POOLED])
        situation = Situation(
            observation=observe(seen, account, largest, limits, session_left(elapsed, meta.session_days)),
            mask=mask,
            cap=largest,
            probability=probability,
            outcome_r=model.outcome_r,
            cost_r=cost_r,
            impact_r=impact_r,
            volatility_ratio=rows[:, ATR_RATIO] / median,
            settled_kelly=np.array([nan]),
            settled_optimal=np.array([nan]),
            k=meta.k,
            base_risk=meta.base_risk,
        )
        values = policy.values(situation)
        proposed = policy.size(situation)
        wanted = proposed if mask.all() else policy.size(replace(situation, mask=EVERY_TIER))
        outside = bundle.support.outside(rows)
    said: dict[str, npt.NDArray[Any]] = {
        "a feature": row,
        "the observation": situation.observation,
        "p": probability,
        "a value": values,
        "the size": np.append(proposed, wanted),
    }
    for name, numbers in said.items():
        if not np.isfinite(numbers).all():
            raise NoAdvice(f"{name} is not finite")
    if min(proposed[0], wanted[0]) < 0.0:
        raise NoAdvice("the size is negative")
    # What PPO's network says of the tiers are log odds, not utilities.
    told = None if meta.algo == "ppo" else values[0]
    return Advice(float(wanted[0]), float(proposed[0]), told, bool(outside[0]), situation)


def _fields(signal: Signal, rows: Floats, ranks: VolatilityRanks) -> Floats:
    """The six signal fields, float64[1, 6]."""
    return signal_fields(
        signal.symbol,
        rows,
        np.array([signal.direction], dtype=np.int8),
        np.array([signal.price]),
        np.array([signal.price if signal.entry is None else signal.entry]),
        np.array([signal.stop]),
        np.array([signal.take_profit]),
        np.array([DEFAULT_CONFIDENCE if signal.confidence is None else signal.confidence]),
        ranks,
    )


def known_without_model(
    signal: Signal,
    row: Floats,
    account: Account,
    limits: Limits,
    largest: Floats,
    win_rate_recent: float | None,
) -> dict[str, float | None]:
    """The observation as far as it is known without a bundle; what is unknown or not finite is None."""
    unknown = np.array([nan])
    with np.errstate(all="ignore"):
        seen = market_observation(_fields(signal, row[None], NO_RANKS), unknown, unknown)
        observation = observe(seen, account, largest, limits, nan)[0].tolist()
    known = dict(zip(OBSERVATION_FIELDS, observation, strict=True))
    known |= {"volatility_regime": None, "win_rate_recent": win_rate_recent}
    return {name: value if value is not None and isfinite(value) else None for name, value in known.items()}


def utility_of(multiplier: float, situation: Situation) -> float:
    """Utility in R expected of the size under the outcome model."""
    law = situation.probability, situation.outcome_r, situation.cost_r, situation.impact_r
    return float(expected_utility(np.array([[multiplier]]), *law, situation.k, situation.base_risk)[0, 0])
