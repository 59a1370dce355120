"""A narrative in plain English, the same for the same facts.

Knows nothing of where the facts come from. No digit is written here: $names stand for the displays of facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from narratives.facts import Facts, Kind, listed
from narratives.reasons import NOTABLE, USUAL_EFFICIENCY, VOLATILITY_WEIGHT, Reason

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
STANDARD: Final = 1.0  # the multiplier of the rule's own size


def write(facts: Facts) -> str:
    """The narrative of `facts`: one paragraph."""
    return " ".join(facts.fill(sentence) for sentence in _WRITERS[facts.kind](facts))


def _trade_rationale(facts: Facts) -> Iterable[str]:
    multiplier = facts.number("multiplier")
    if multiplier == 0:
        yield "Skip the $side $symbol trade: the size is $multiplier ($action), so no equity is put at risk."
    else:
        size = "the standard size, $multiplier" if multiplier == STANDARD else "$multiplier the standard size"
        yield f"Take the $side $symbol trade at {size} ($action), risking $risk_fraction of equity."
    yield f"{_proposal(facts)}{_binding(facts)}."
    yield from _reasons(facts)
    if "runner_up" in facts and facts.text("source") == "model":
        lead = "$action leads the next-best legal size, $runner_up, by $runner_up_margin"
        yield f"In the model's values, {lead}."


def _proposal(facts: Facts) -> str:
    """Who proposed what."""
    if facts.text("source") == "rule":
        return "No model had a say (model status: $model_status), so the rule proposed its standard size"
    if facts.text("binding_rule") == "invalid_proposal" or "proposed_multiplier" not in facts:
        return "The $model_status model gave no valid size"
    if facts.number("proposed_multiplier") == 0:
        return "The $model_status model proposed to skip it"
    return "The $model_status model proposed $proposed_multiplier"


def _binding(facts: Facts) -> str:
    """What the rules made of the proposal, and which rule bound it."""
    rule = _rule_words(facts.text("binding_rule"))
    match facts.text("binding_rule"):
        case "none":
            proposed = facts.number("proposed_multiplier") if "proposed_multiplier" in facts else 0.0
            rounded = ", rounded down to $multiplier" if proposed > facts.number("multiplier") else ""
            return f"{rounded}; no limit bound it, and up to $rule_cap was allowed"
        case "invalid_account" | "invalid_limits":
            return f", but {rule} failed, so nothing may be risked"
        case "invalid_proposal":
            return f", so {rule} put the rule's standard size in its place"
        case "out_of_distribution":
            return f", but {rule} never lets such input raise the standard size"
        case "skip_not_allowed":
            return f", but {rule} demands the smallest size instead"
    if facts.number("rule_cap") == 0:
        return f", but {rule} leaves no room for it"
    return f", but {rule} allows at most $rule_cap"


def _reasons(facts: Facts) -> Iterable[str]:
    """The strongest readings, called reasons only where a model weighed them."""
    if not facts.reasons:
        yield "No reading of the market or the account stands out."
        return
    if facts.text("source") == "rule":
        readings = [_clause(reason, facts) for reason in facts.reasons[:2]]
        plural = "s" if len(readings) > 1 else ""
        yield f"The strongest reading{plural}, which the rule does not weigh, {_are_that(readings)}."
        return
    wanted = facts.number("proposed_multiplier" if "proposed_multiplier" in facts else "multiplier")
    sign = 1.0 if wanted >= STANDARD else -1.0
    overruled = (wanted > 0) != (facts.number("multiplier") > 0)
    aim = "to take it" if wanted >= STANDARD else "for a small size" if wanted > 0 else "to stay out"
    aim = "for the proposal" if overruled else aim
    agreeing = [_clause(reason, facts) for reason in facts.reasons if sign * reason.strength > 0][:2]
    opposing = [_clause(reason, facts) for reason in facts.reasons if sign * reason.strength < 0][:2]
    if not agreeing:
        yield f"No reading clearly supports this; the strongest on the other side {_are_that(opposing)}."
        return
    yield f"The strongest reason{'s' if len(agreeing) > 1 else ''} {aim} {_are_that(agreeing)}."
    if len(agreeing) == 1 and opposing:
        yield f"The strongest reading on the other side is that {opposing[0]}."


def _are_that(clauses: list[str]) -> str:
    if len(clauses) == 1:
        return f"is that {clauses[0]}"
    return f"are that {clauses[0]}, and that {clauses[1]}"


def _clause(reason: Reason, facts: Facts) -> str:
    """One reading in words, without its first capital and its full stop."""
    supports, is_long = reason.strength > 0, facts.text("side") == "long"
    match reason.field:
        case "trend_strength":
            if facts.number("trend_strength") < USUAL_EFFICIENCY:
                return "the trend is weak (efficiency ratio $trend_strength)"
            course = "in the direction of" if supports else "against"
            trend = f"a {_trend_word(facts)} trend runs {course} the trade"
            return f"{trend} (efficiency ratio $trend_strength)"
        case "volatility_regime":
            return (
                f"volatility is {_volatility_word(facts)} (rank $volatility_regime among the training bars)"
            )
        case "momentum_score":
            course = "with" if supports else "against"
            moving = "rising" if supports == is_long else "falling"
            return f"momentum runs {course} the trade, as prices have been {moving} (score $momentum_score)"
        case "signal_confidence":
            side = "above" if supports else "below"
            chance = f"the estimated chance of a win, $signal_confidence, is {side}"
            return f"{chance} the break-even rate of $break_even before costs"
        case "entry_quality":
            side = "above" if supports == is_long else "below"
            return f"the close is $entry_quality {side} the entry level"
        case "risk_reward_ratio":
            if facts.number("reward_to_risk") <= 1:
                return "the target is no farther away than the stop"
            return "the target is $reward_to_risk as far away as the stop"
        case "current_exposure_pct":
            return "open risk already uses $current_exposure_pct of the exposure limit"
        case "win_rate_recent":
            amount = "more" if supports else "less"
            rate = f"the recent win rate, $win_rate_recent, is {amount}"
            return f"{rate} than the target and the stop need to break even"
        case "drawdown_pct":
            return "the account is $drawdown_pct of the way to its drawdown limit"
        case _:
            only = "only " if facts.number("remaining_daily_risk") < 0.5 else ""
            return f"{only}$remaining_daily_risk of the daily risk budget is left"


def _risk_assessment(facts: Facts) -> Iterable[str]:
    if facts.number("multiplier") == 0:
        yield "The $side $symbol trade is skipped ($multiplier), so it adds no risk."
    else:
        yield (
            "The $side $symbol trade risks $risk_fraction of equity between entry and stop: "
            "$multiplier the base risk of $base_risk."
        )
    yield from _limits_used(facts)
    rule = facts.text("binding_rule")
    room = "leave no room for a trade" if facts.number("rule_cap") == 0 else "allow at most $rule_cap"
    bound = "none of them had to change the size" if rule == "none" else f"{_rule_words(rule)} bound the size"
    yield f"The limits {room} now; {bound}."
    for name in facts.by_name:
        if name.startswith("blocked_by_"):
            blocker = _rule_words(str(facts.by_name[name].value))
            yield f"{blocker[0].upper()}{blocker[1:]} blocks ${name}."
    if "volatility_regime" in facts:
        yield f"Volatility is {_volatility_word(facts)} (rank $volatility_regime among the training bars)."


def _limits_used(facts: Facts) -> Iterable[str]:
    """How much of its limits the account has used up already."""
    parts: dict[str, float] = {}
    if "current_exposure_pct" in facts:
        used = facts.number("current_exposure_pct")
        part = "open risk stands at $current_exposure_pct of the exposure limit"
        parts[part if used > 0 else "no risk is open"] = used
    if "drawdown_pct" in facts:
        used = facts.number("drawdown_pct")
        parts["drawdown stands at $drawdown_pct of its limit" if used > 0 else "there is no drawdown"] = used
    if "remaining_daily_risk" in facts:
        left = facts.number("remaining_daily_risk")
        share = "all" if left >= 1 else "none" if left <= 0 else "$remaining_daily_risk"
        parts[f"{share} of the daily risk budget is left"] = 1.0 - left
    if parts:
        most = max(parts.values())
        level = "low" if most < 0.25 else "moderate" if most < 0.5 else "high" if most < 0.8 else "very high"
        yield f"The account's use of its limits is {level}: {listed(parts)}."


def _rule_words(rule: str) -> str:
    return RULE_WORDS.get(rule, f"the rule {rule}")


def _trend_word(facts: Facts) -> str:
    efficiency = facts.number("trend_strength")
    return "clear" if efficiency >= 0.5 else "moderate" if efficiency >= USUAL_EFFICIENCY else "weak"


def _volatility_word(facts: Facts) -> str:
    distance = facts.number("volatility_regime") - 0.5
    if 2 * VOLATILITY_WEIGHT * abs(distance) < NOTABLE:
        return "moderate"
    rather = "" if abs(distance) >= 0.25 else "rather "
    return f"{rather}{'high' if distance > 0 else 'low'}"


def _market_narrative(facts: Facts) -> Iterable[str]:
    momentum = facts.number("mom_20")
    course = "rising" if momentum >= 0.5 else "falling" if momentum <= -0.5 else "moving sideways"
    yield (
        f"$symbol is {course}: momentum over $trend_window is $mom_20, "
        f"and the trend is {_trend_word(facts)} (efficiency ratio $trend_strength)."
    )
    short = facts.number("mom_5")
    if course != "moving sideways" and short * momentum < 0 and abs(short) >= 0.5:
        yield "Over the last $short_window momentum has turned the other way ($mom_5)."
    ahead = "upward" if facts.number("adx_direction") > 0 else "downward"
    directional = (
        f"with {ahead} movement ahead" if facts.number("adx") >= 20 else "too low to show a direction"
    )
    yield f"ADX is $adx, {directional}."
    rsi = facts.number("rsi")
    state = "overbought" if rsi >= 70 else "oversold" if rsi <= 30 else "neither overbought nor oversold"
    yield f"RSI is $rsi, {state}, and the close lies at $range_position of its range over $trend_window."
    yield "The average true range is $atr_ratio of price, and the Bollinger bands span $bb_width of it."
    yield from _volume(facts)
    yield from _structure(facts)


def _volume(facts: Facts) -> Iterable[str]:
    """Nothing where volume is constant or missing: its features are neutral then."""
    spike = facts.number("vol_spike")
    if spike == 0 and facts.number("vol_trend") == 0:
        return
    level = "the same as" if facts.text("vol_ratio_5_20") == "1 times" else "$vol_ratio_5_20 that"
    yield f"Average volume over $short_window is {level} over $trend_window."
    if abs(spike) >= 2:
        yield f"The last bar's volume is unusually {'high' if spike > 0 else 'low'} ($vol_spike)."


def _structure(facts: Facts) -> Iterable[str]:
    highs, lows = facts.number("higher_highs") - 0.5, facts.number("lower_lows") - 0.5
    if highs * lows < 0:
        yield f"Swing highs and swing lows are {'rising' if highs > 0 else 'falling'}."
    elif highs * lows > 0:
        yield f"The swings are {'widening' if highs > 0 else 'narrowing'}."
    reversion = facts.number("mean_reversion")
    if abs(reversion) >= 0.1:
        habit = "reverse" if reversion > 0 else "continue"
        moves = f"Moves over the last $structure_window have tended to {habit}"
        yield f"{moves} (mean-reversion score $mean_reversion)."


def _performance_summary(facts: Facts) -> Iterable[str]:
    opening = "Results for $subject ($period):"
    trades = facts.number("trades")
    if trades == 0:
        yield f"{opening} no trades were closed."
        return
    rate = facts.number("win_rate")
    if trades == 1:
        yield f"{opening} $trades was closed, {'at a profit' if rate > 0 else 'without a profit'}."
        yield "The result was $total_r."
    else:
        share = "all of them" if rate == 1 else "none of them" if rate == 0 else "$win_rate of them"
        yield f"{opening} $trades were closed, {share} at a profit."
        yield "The result was $total_r in total, $mean_r a trade on average."
    drawn = facts.number("max_drawdown") > 0
    fall = "the largest drawdown was $max_drawdown of equity" if drawn else "there was no drawdown"
    yield f"The average size was $average_multiplier, and {fall}."


_WRITERS: Final[Mapping[Kind, Callable[[Facts], Iterable[str]]]] = {
    "market_narrative": _market_narrative,
    "trade_rationale": _trade_rationale,
    "risk_assessment": _risk_assessment,
    "performance_summary": _performance_summary,
}
