"""Which readings of an observation speak for a trade and which against, the strongest first.

Knows nothing of words or policies: a reading's strength is its distance from neutral, a fixed yardstick that
is the same for every model. It tells what stood out, not what a network's weights made of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, FiniteFloat

NOTABLE = 0.1  # weaker readings are no reasons
USUAL_EFFICIENCY = (
    0.25  # what a random walk's efficiency ratio over 20 bars comes to, on average, is near this
)
CLEAR_EDGE = 0.2  # a probability this far from break-even counts as full strength


VOLATILITY_WEIGHT = 0.8


class Reason(BaseModel):
    """One reading: `strength` in [-1, 1], above zero where it speaks for the trade."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    strength: FiniteFloat


def reward_to_risk(risk_reward_ratio: float) -> float:
    """Target distance over stop distance from the observation's field; 1 and 3 stand for all beyond them."""
    return 2.0 + min(max(risk_reward_ratio, -1.0), 1.0)


def break_even(risk_reward_ratio: float) -> float:
    """The share of winners at which a target and a stop that far apart come to nothing, before costs."""
    return 1.0 / (1.0 + reward_to_risk(risk_reward_ratio))


def ranked(observation: Mapping[str, float | None]) -> tuple[Reason, ...]:
    """All notable readings, the strongest first; equal ones in the order of the fields below."""
    known = {name: value for name, value in observation.items() if value is not None}
    strengths = {
        "trend_strength": _trend(known),
        "volatility_regime": VOLATILITY_WEIGHT * (1.0 - 2.0 * known.get("volatility_regime", 0.5)),
        "momentum_score": known.get("momentum_score", 0.0),
        "signal_confidence": _edge(known, "signal_confidence"),
        "entry_quality": 0.8 * known.get("entry_quality", 0.0),
        "risk_reward_ratio": 0.8 * known.get("risk_reward_ratio", 0.0),
        "current_exposure_pct": -known.get("current_exposure_pct", 0.0),
        "win_rate_recent": 0.5 * _edge(known, "win_rate_recent"),
        "drawdown_pct": -known.get("drawdown_pct", 0.0),
        "remaining_daily_risk": known.get("remaining_daily_risk", 1.0) - 1.0,
    }
    reasons = [Reason(field=name, strength=min(max(value, -1.0), 1.0)) for name, value in strengths.items()]
    notable = [reason for reason in reasons if abs(reason.strength) >= NOTABLE]
    return tuple(sorted(notable, key=lambda reason: -abs(reason.strength)))


def _trend(known: Mapping[str, float]) -> float:
    """A weak trend speaks against every trade, a clear one for the side that momentum is on."""
    if "trend_strength" not in known:
        return 0.0
    distance = known["trend_strength"] - USUAL_EFFICIENCY
    if distance < 0:
        return distance / USUAL_EFFICIENCY
    sign = -1.0 if known.get("momentum_score", 0.0) < 0 else 1.0
    return sign * distance / (1.0 - USUAL_EFFICIENCY)


def _edge(known: Mapping[str, float], field: str) -> float:
    """How far a share of winners lies from break-even; nothing where clipped distances leave that open."""
    if field not in known or "risk_reward_ratio" not in known:
        return 0.0
    edge = known[field] - break_even(known["risk_reward_ratio"])
    beyond = known["risk_reward_ratio"]
    if (beyond >= 1.0 and edge < 0.0) or (beyond <= -1.0 and edge > 0.0):
        return 0.0
    return edge / CLEAR_EDGE
