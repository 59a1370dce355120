"""A narrative in plain English, the same for the same facts.

Knows nothing of where the facts come from, nor of the words: it takes the first of all that may be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from narratives.choices import Part, Phrase, first, parse
from narratives.facts import Facts, Kind
from narratives.market_wordings import market_narrative
from narratives.performance_wordings import performance_summary
from narratives.rationale_wordings import trade_rationale
from narratives.risk_wordings import risk_assessment

_WORDINGS: Final[Mapping[Kind, Callable[[Facts], Iterable[str | Phrase]]]] = {
    "market_narrative": market_narrative,
    "trade_rationale": trade_rationale,
    "risk_assessment": risk_assessment,
    "performance_summary": performance_summary,
}


def wordings(facts: Facts) -> Phrase:
    """All that may be told of `facts`, every choice of it correct and true; $names stand for displays."""
    parts: list[Part] = []
    for sentence in _WORDINGS[facts.kind](facts):
        parts += [" "] if parts else []
        parts += parse(sentence) if isinstance(sentence, str) else sentence
    return tuple(parts)


def write(facts: Facts) -> str:
    """The narrative of `facts`: one paragraph."""
    return facts.fill(first(wordings(facts)))
