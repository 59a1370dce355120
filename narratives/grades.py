"""The words for how strong a trend or how high volatility is.

Knows nothing of sentences.
"""

from __future__ import annotations

from narratives.facts import Facts
from narratives.reasons import NOTABLE, USUAL_EFFICIENCY, VOLATILITY_WEIGHT


def trend_word(facts: Facts) -> str:
    """How clear the trend is."""
    efficiency = facts.number("trend_strength")
    return "clear" if efficiency >= 0.5 else "moderate" if efficiency >= USUAL_EFFICIENCY else "weak"


def volatility_word(facts: Facts) -> str:
    """How high volatility ranks."""
    distance = facts.number("volatility_regime") - 0.5
    if 2 * VOLATILITY_WEIGHT * abs(distance) < NOTABLE:
        return "moderate"
    rather = "" if abs(distance) >= 0.25 else "rather "
    return f"{rather}{'high' if distance > 0 else 'low'}"
