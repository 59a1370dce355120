"""What the guardrail's rules are called in a sentence.

Knows nothing of what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RULE_WORDS: Final[Mapping[str, str]] = {
    "none": "no limit",
    "rule_cap": "the rule cap",
    "max_position": "the position limit",
    "max_exposure": "the exposure limit",
    "max_daily_risk": "the daily risk budget",
    "max_drawdown": "the drawdown limit",
    "max_open_trades": "the limit on open trades",
    "invalid_account": "the check of the account figures",
    "invalid_limits": "the check of the limits",
    "invalid_proposal": "the check of the proposal",
    "out_of_distribution": "the guard against unfamiliar input",
    "skip_not_allowed": "the rule against skipping",
    "unknown": "another rule",
}


def rule_words(rule: str) -> str:
    """The rule as it is called, another's by its own name."""
    return RULE_WORDS.get(rule, f"the rule {rule}")
