"""What a trade risks and what the limits leave, in every way that may be told.

Knows nothing of who chooses. The first option of every choice is the template's; no digit is written here.
"""

from __future__ import annotations

from collections.abc import Iterable

from narratives.choices import Phrase, in_either_order
from narratives.facts import Facts, listed
from narratives.grades import volatility_word
from narratives.rule_words import rule_words


def risk_assessment(facts: Facts) -> Iterable[str | Phrase]:
    """The risk, the limits used, what they allow, the sizes they block, the volatility."""
    trade = "the $side $symbol trade"
    if facts.number("multiplier") == 0:
        yield (
            f"[T{trade[1:]} is skipped ($multiplier), so it adds no risk|With {trade} skipped ($multiplier), "
            "no risk is added]."
        )
    else:
        yield (
            f"[T{trade[1:]} risks $risk_fraction of equity between entry and stop|Between entry and stop, "
            f"{trade} risks $risk_fraction of equity|At stake in {trade} is $risk_fraction of equity from "
            "entry to stop]: $multiplier the base risk of $base_risk."
        )
    allowed, used = _allowed(facts), _limits_used(facts)
    yield in_either_order(used, allowed) if used else f"[{'|'.join(allowed)}]"
    for name in facts.by_name:
        if name.startswith("blocked_by_"):
            blocker = rule_words(str(facts.by_name[name].value))
            yield f"{blocker[0].upper()}{blocker[1:]} [blocks|bars] ${name}."
    if "volatility_regime" in facts:
        rank = "(rank $volatility_regime among the training bars)"
        yield f"[Volatility|The market's volatility] is {volatility_word(facts)} {rank}."


def _allowed(facts: Facts) -> list[str]:
    """What the limits allow, and whether one of them changed the size."""
    rule = facts.text("binding_rule")
    room = "leave no room for a trade" if facts.number("rule_cap") == 0 else "allow at most $rule_cap"
    bound = (
        "none of them had to change the size"
        if rule == "none"
        else f"{rule_words(rule)} failed and so decided the size"
        if rule.startswith("invalid_")
        else f"{rule_words(rule)} bound the size"
    )
    return [f"The limits {room} now; {bound}.", f"As things stand, the limits {room}; {bound}."]


def _limits_used(facts: Facts) -> list[str]:
    """How much of its limits the account has used up already; empty where that is not known."""
    parts: dict[str, float] = {}
    if "current_exposure_pct" in facts:
        used = facts.number("current_exposure_pct")
        part = "open risk [stands|is] at $current_exposure_pct of the exposure limit"
        parts[part if used > 0 else "no risk is open"] = used
    if "drawdown_pct" in facts:
        used = facts.number("drawdown_pct")
        part = "drawdown [stands|is] at $drawdown_pct of its limit"
        parts[part if used > 0 else "there is no drawdown"] = used
    if "remaining_daily_risk" in facts:
        left = facts.number("remaining_daily_risk")
        share = "all" if left >= 1 else "none" if left <= 0 else "$remaining_daily_risk"
        parts[f"{share} of the daily risk budget [is left|remains]"] = 1.0 - left
    if not parts:
        return []
    most = max(parts.values())
    level = "low" if most < 0.25 else "moderate" if most < 0.5 else "high" if most < 0.8 else "very high"
    told = f"is {level}: {listed(parts)}."
    return [f"The account's use of its limits {told}", f"Use of the account's limits {told}"]
