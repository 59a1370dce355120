"""Why a size is what it is, in every way that may be told.

Knows nothing of who chooses. The first option of every choice is the template's; no digit is written here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from narratives.choices import Phrase, in_either_order, one_of, parse
from narratives.facts import Facts
from narratives.grades import trend_word, volatility_word
from narratives.reasons import USUAL_EFFICIENCY, Reason
from narratives.rule_words import rule_words

STANDARD: Final = 1.0  # the multiplier of the rule's own size


def trade_rationale(facts: Facts) -> Iterable[str | Phrase]:
    """The size, who proposed it, the rule that bound it, the strongest reasons, the next-best size."""
    if facts.number("multiplier") == 0:
        yield (
            "[Skip|Stay out of|Leave out] the $side $symbol trade: [the|its] size is $multiplier ($action), "
            "[so no equity is put at risk|and no equity is at risk]."
        )
    else:
        standard = facts.number("multiplier") == STANDARD
        size = "the standard size, $multiplier" if standard else "$multiplier the standard size"
        yield (
            f"[Take|Enter|Open] the $side $symbol trade at {size} ($action), [risking $risk_fraction of "
            "equity|which puts $risk_fraction of equity at risk|with $risk_fraction of equity at risk]."
        )
    proposal, (reasons, may_lead) = f"{_proposal(facts)}{_binding(facts)}.", _reasons(facts)
    if may_lead:
        yield in_either_order([proposal], reasons)
    else:
        yield proposal
        yield one_of(*map(parse, reasons))
    if "runner_up" in facts and _has_proposal(facts):
        yield (
            "[In|By] the model's values, $action [leads|is ahead of] the next-best legal size, $runner_up, "
            "by $runner_up_margin."
        )


def _has_proposal(facts: Facts) -> bool:
    """Whether a model weighed the readings and came to a size."""
    no_size = facts.text("binding_rule") == "invalid_proposal" or "proposed_multiplier" not in facts
    return facts.text("source") == "model" and not no_size


def _proposal(facts: Facts) -> str:
    """Who proposed what."""
    if facts.text("source") == "rule":
        return (
            "No model [had a say|took part] (model status: $model_status), so the rule [proposed|put "
            "forward] its standard size"
        )
    model = "The $model_status model"
    if not _has_proposal(facts):
        return f"{model} [gave|returned] no valid size"
    if facts.number("proposed_multiplier") == 0:
        return f"{model} [proposed to skip it|preferred to stay out]"
    return f"{model} [proposed|asked for|suggested] $proposed_multiplier"


def _binding(facts: Facts) -> str:
    """What the rules made of the proposal, and which rule bound it."""
    rule = rule_words(facts.text("binding_rule"))
    match facts.text("binding_rule"):
        case "none":
            proposed = facts.number("proposed_multiplier") if "proposed_multiplier" in facts else 0.0
            rounded = ", rounded down to $multiplier" if proposed > facts.number("multiplier") else ""
            if facts.number("rule_cap") == 0:
                return f"{rounded}; no limit bound it, and nothing was allowed anyway"
            skipped = facts.number("multiplier") == 0
            bound = "bound it[, and|:]" if skipped else "[bound it, and|held it back:|stood in its way, and]"
            return f"{rounded}; no limit {bound} up to $rule_cap was allowed"
        case "invalid_account" | "invalid_limits":
            return f", but {rule} failed, so [nothing may be risked|no risk may be taken]"
        case "invalid_proposal":
            return f", so {rule} [put the rule's standard size in its place|fell back on the standard size]"
        case "out_of_distribution":
            return f", but {rule} [never lets such input|does not let such input] raise the standard size"
        case "skip_not_allowed":
            return f", but {rule} [demands|calls for] the smallest size instead"
    if facts.number("rule_cap") == 0:
        return f", but {rule} leaves no [room for it|space for it]"
    return f", but {rule} [allows at most|allows no more than|permits at most] $rule_cap"


def _reasons(facts: Facts) -> tuple[list[str], bool]:
    """The strongest readings, and whether they may be told before the proposal.

    They are called reasons only where a model weighed them.
    """
    if not facts.reasons:
        return ["No reading of the market or the account stands out."], False
    if not _has_proposal(facts):
        readings = [clause(reason, facts) for reason in facts.reasons[:2]]
        plural = "s" if len(readings) > 1 else ""
        return [
            f"The strongest reading{plural}, which the rule does not weigh, {_are_that(readings)}.",
            f"Of the readings, which the rule does not weigh, the strongest {_are_that(readings)}.",
        ], True
    wanted = facts.number("proposed_multiplier")
    sign = 1.0 if wanted >= STANDARD else -1.0
    overruled = (wanted > 0) != (facts.number("multiplier") > 0)
    aim, doing = (
        ("for the proposal", "the proposal")
        if overruled
        else ("to take it", "taking it")
        if wanted >= STANDARD
        else ("for a small size", "a small size")
        if wanted > 0
        else ("to stay out", "staying out")
    )
    agreeing = [clause(reason, facts) for reason in facts.reasons if sign * reason.strength > 0][:2]
    opposing = [clause(reason, facts) for reason in facts.reasons if sign * reason.strength < 0][:2]
    if not agreeing:
        told = f"the strongest on the other side {_are_that(opposing)}."
        return [f"No reading [clearly supports|speaks clearly for] this; {told}"], False
    contrast = (
        f" [The strongest reading|What weighs most] on the other side is that {opposing[0]}."
        if len(agreeing) == 1 and opposing
        else ""
    )
    reasons = f"The strongest reason{'s' if len(agreeing) > 1 else ''} {aim} {_are_that(agreeing)}.{contrast}"
    return [reasons, f"What speaks most for {doing} is {_that(agreeing)}.{contrast}"], not overruled


def _are_that(clauses: list[str]) -> str:
    return f"{'is' if len(clauses) == 1 else 'are'} {_that(clauses)}"


def _that(clauses: list[str]) -> str:
    return ", and ".join(f"that {each}" for each in clauses)


def clause(reason: Reason, facts: Facts) -> str:
    """One reading in words, without its first capital and its full stop."""
    supports, is_long = reason.strength > 0, facts.text("side") == "long"
    match reason.field:
        case "trend_strength":
            if facts.number("trend_strength") < USUAL_EFFICIENCY:
                return "[the trend is weak|there is little trend] (efficiency ratio $trend_strength)"
            course = (
                "[runs in the direction of|points the same way as]" if supports else "[runs|points] against"
            )
            return f"a {trend_word(facts)} trend {course} the trade (efficiency ratio $trend_strength)"
        case "volatility_regime":
            rank = "(rank $volatility_regime among the training bars)"
            return f"[volatility|the market's volatility] is {volatility_word(facts)} {rank}"
        case "momentum_score":
            course = "with" if supports else "against"
            moving = f"prices have been {'rising' if supports == is_long else 'falling'}"
            return (
                f"[momentum runs {course} the trade, as {moving}|{moving}, so momentum is {course} the "
                "trade] (score $momentum_score)"
            )
        case "signal_confidence":
            chance = "the estimated chance of a win[, $signal_confidence, is| is $signal_confidence,]"
            side = "above" if supports else "below"
            return f"{chance} {side} the break-even rate of $break_even before costs"
        case "entry_quality":
            side = "above" if supports == is_long else "below"
            return f"the close [is|lies] $entry_quality {side} the entry level"
        case "risk_reward_ratio":
            if facts.number("reward_to_risk") <= 1:
                return "the target [is|lies] no farther away than the stop"
            only = "" if supports else "only "
            return f"the target [is|lies] {only}$reward_to_risk as far away as the stop"
        case "current_exposure_pct":
            return "open risk already [uses|takes up] $current_exposure_pct of the exposure limit"
        case "win_rate_recent":
            rate = "the recent win rate[, $win_rate_recent, is| is $win_rate_recent,]"
            amount = "more" if supports else "less"
            return f"{rate} {amount} than the target and the stop need to break even"
        case "drawdown_pct":
            return (
                "[the account is $drawdown_pct of the way to its drawdown limit|drawdown has used "
                "$drawdown_pct of its limit]"
            )
        case _:
            if facts.number("remaining_daily_risk") <= 0:
                return "none of the daily risk budget [is left|remains]"
            budget = "$remaining_daily_risk of the daily risk budget"
            if facts.number("remaining_daily_risk") < 0.5:
                return f"only {budget} [is left|remains]"
            return f"{budget} is all that [is left|remains]"
