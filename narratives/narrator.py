"""Tell a market, a decision, its risk or a period's results in plain English, every number a fact.

Knows nothing of Ray or HTTP: a trading loop may hold a `Narrator` in its own process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from narratives import facts, template
from narratives.facts import Facts, Kind


class Narrative(BaseModel):
    """A text, the facts it was made of and who wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    kind: Kind
    facts: Facts
    writer: str = "template"


class Narrator:
    """Narratives by the deterministic template. Holds no state: any number of threads may share one.

    Every method raises `InputError`, naming field, value and mend, for a context it cannot use
    (narratives.contexts lists what each kind needs).
    """

    def generate_market_narrative(self, context: Mapping[str, Any]) -> Narrative:
        """What the market is doing: `symbol` and its 31 `features`."""
        return self.generate("market_narrative", context)

    def generate_trade_rationale(self, context: Mapping[str, Any]) -> Narrative:
        """Why the size is what it is: a sizing decision's details."""
        return self.generate("trade_rationale", context)

    def generate_risk_assessment(self, context: Mapping[str, Any]) -> Narrative:
        """What the trade risks and what the limits leave: a sizing decision's details."""
        return self.generate("risk_assessment", context)

    def generate_performance_summary(self, context: Mapping[str, Any]) -> Narrative:
        """What a period's closed trades came to."""
        return self.generate("performance_summary", context)

    def generate(self, kind: Kind, context: Mapping[str, Any]) -> Narrative:
        """A narrative of any kind, by its name."""
        known = facts.compute(kind, context)
        return Narrative(text=template.write(known), kind=kind, facts=known)
