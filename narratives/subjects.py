"""What a free text may speak of, by which nouns, and the directions that the facts give each.

Knows nothing of texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from narratives.facts import Facts
from narratives.grades import trend_word, volatility_word

UP, DOWN, FOR, AGAINST, LONG, SHORT = "up", "down", "for", "against", "long", "short"
WORDS: Final = {
    UP: r"above|beyond|exceed\w*|higher|high|more|greater|larger|large|bigger|big|farther|ris(?:e|es|en|ing)|"
    r"rose|up|upwards?|upside|increas\w*|climb\w*|gain\w*|gr[eo]w\w*|strong(?:er|ly)?|clear|elevated|expand\w*|"
    r"wid(?:e|er|en\w*)|positive|profit\w*|raise[sd]?|upper|robust|overbought",
    DOWN: r"below|under|beneath|lower\w*|low|less|fewer|smaller|small|closer|fall(?:s|en|ing)?|fell|down|"
    r"downwards?|downside|decreas\w*|declin\w*|drop\w*|weak\w*|shr[iu]nk\w*|narrow\w*|negative|loss\w*|los(?:e|es|t|ing)|"
    r"reduc\w*|cut(?:s|ting)?|capp?ed|little|calm|oversold",
    FOR: r"supports?|supporting|supported|favou?r\w*|confirm\w*|with the trade|same (?:way|direction)|"
    r"in the direction of|agree\w*|encourag\w*",
    AGAINST: r"against|oppos\w*|contradict\w*|despite|headwinds?|opposite|counter\w*|warn\w*|disagree\w*",
    LONG: r"long|buy\w*|bought|bullish",
    SHORT: r"short|sell\w*|sold|bearish",
}


class Subject(NamedTuple):
    """What a text may speak of: the nouns that name it, its placeholders, and the directions it has."""

    nouns: str
    names: tuple[str, ...]
    directions: frozenset[str]


def subjects_of(facts: Facts) -> Iterable[Subject]:
    """Every subject of a text about `facts`."""
    if facts.kind == "market_narrative":
        yield from _of_a_market(facts)
    elif facts.kind == "performance_summary":
        yield from _of_a_performance(facts)
    else:
        yield from _of_a_decision(facts)


def _sign(value: float) -> frozenset[str]:
    return frozenset([UP] if value > 0 else [DOWN] if value < 0 else [])


def _trend(facts: Facts) -> frozenset[str]:
    word = trend_word(facts) if "trend_strength" in facts else ""
    return frozenset({"clear": [UP], "weak": [DOWN]}.get(word, []))


def _volatility(facts: Facts) -> frozenset[str]:
    word = volatility_word(facts) if "volatility_regime" in facts else ""
    return frozenset([UP] if "high" in word else [DOWN] if "low" in word else [])


def _beyond(facts: Facts, rate: str) -> frozenset[str]:
    """On which side of break-even a share of winners lies."""
    known = rate in facts and "break_even" in facts
    return _sign(facts.number(rate) - facts.number("break_even")) if known else frozenset()


def _of_a_decision(facts: Facts) -> Iterable[Subject]:
    side = 1.0 if facts.text("side") == "long" else -1.0
    backing = {reason.field: FOR if reason.strength > 0 else AGAINST for reason in facts.reasons}

    def reading(field: str, nouns: str, directions: frozenset[str], *names: str) -> Iterable[Subject]:
        if (names or (field,))[0] in facts:
            stand = {backing[field]} if field in backing else set()
            yield Subject(nouns, names or (field,), directions | stand)

    size = facts.number("multiplier")
    proposed = facts.number("proposed_multiplier") if "proposed_multiplier" in facts else size
    changes = _sign(size - 1) | _sign(proposed - 1) | (frozenset([DOWN]) if size < proposed else frozenset())
    yield Subject(
        r"sizes?|sized|position|multiplier|model|proposal|proposed|action|standard",
        ("multiplier", "proposed_multiplier", "action", "runner_up", "runner_up_margin"),
        changes,
    )
    bound = frozenset() if facts.text("binding_rule") == "none" else frozenset([DOWN])
    yield Subject(r"limit\w*|caps?|rules?|guard|check|budget|allow\w*|permit\w*", ("rule_cap",), bound)
    yield Subject(r"equity|risk|risks|risking", ("risk_fraction", "base_risk"), frozenset())
    yield from reading("trend_strength", r"trends?|efficiency", _trend(facts))
    yield from reading("volatility_regime", r"volatility|volatile", _volatility(facts))
    score = facts.number("momentum_score") if "momentum_score" in facts else 0.0
    yield from reading("momentum_score", r"momentum|prices?", _sign(score * side))
    yield from reading(
        "signal_confidence", r"chances?|probability|odds|confidence|break-even rate|win rate of the break",
        _beyond(facts, "signal_confidence"), "signal_confidence", "break_even",
    )  # fmt: skip
    yield from reading("win_rate_recent", r"recent win rate|win rate", _beyond(facts, "win_rate_recent"))
    quality = facts.number("entry_quality") if "entry_quality" in facts else 0.0
    yield from reading("entry_quality", r"close|entry", _sign(quality * side))
    ratio = facts.number("reward_to_risk") if "reward_to_risk" in facts else 1.0
    yield from reading("risk_reward_ratio", r"target|stop|reward", _sign(ratio - 1), "reward_to_risk")
    used = [facts.number(name) for name in ("current_exposure_pct", "drawdown_pct") if name in facts]
    left = facts.number("remaining_daily_risk") if "remaining_daily_risk" in facts else 1.0
    yield from reading("current_exposure_pct", r"open risk|exposure", frozenset())
    yield from reading("drawdown_pct", r"drawdown|account", frozenset())
    scarce = left < 0.5 or facts.text("binding_rule") == "max_daily_risk"
    yield from reading(
        "remaining_daily_risk",
        r"daily risk budget|daily budget|daily risk",
        frozenset([DOWN] if scarce else []),
    )
    most = max(*used, 1.0 - left, 0.0)
    level = _sign(most - 0.5) if most >= 0.5 or most < 0.25 else frozenset()
    yield Subject(r"use of its limits|use of the account's limits|usage", (), level)


def _of_a_market(facts: Facts) -> Iterable[Subject]:
    slow, fast = facts.number("mom_20"), facts.number("mom_5")
    course = _sign(slow) if abs(slow) >= 0.5 else frozenset()
    yield Subject(r"momentum|prices?|market|symbol", ("mom_20",), course)
    yield Subject(r"short_window", ("mom_5",), _sign(fast))
    yield Subject(r"trends?|efficiency", ("trend_strength",), _trend(facts))
    directed = facts.number("adx") >= 20
    ahead = _sign(facts.number("adx_direction")) if facts.number("adx_direction") else frozenset([DOWN])
    yield Subject(r"ADX|movement", ("adx", "adx_direction"), ahead if directed else frozenset([DOWN]))
    rsi = facts.number("rsi")
    extreme = _sign(rsi - 50) if rsi >= 70 or rsi <= 30 else frozenset()
    yield Subject(r"RSI", ("rsi",), extreme)
    yield Subject(r"close|range", ("range_position",), _sign(facts.number("range_position") - 0.5))
    yield Subject(r"true range|bands?|Bollinger", ("atr_ratio", "bb_width"), frozenset())
    yield Subject(r"average volume|volume", ("vol_ratio_5_20",), _sign(facts.number("vol_ratio_5_20") - 1))
    spike = facts.number("vol_spike")
    yield Subject(r"last bar's volume", ("vol_spike",), _sign(spike) if abs(spike) >= 2 else frozenset())
    highs, lows = facts.number("higher_highs") - 0.5, facts.number("lower_lows") - 0.5
    yield Subject(r"swings?|highs|lows", (), _sign(highs) if highs * lows else frozenset())
    yield Subject(r"moves|reversion", ("mean_reversion",), frozenset())


def _of_a_performance(facts: Facts) -> Iterable[Subject]:
    if "total_r" not in facts:
        return
    wins = frozenset([UP]) if facts.number("win_rate") > 0 else frozenset()
    yield Subject(r"trades?|of them|win_rate", ("trades", "win_rate"), wins)
    result = _sign(facts.number("total_r"))
    yield Subject(r"results?|total|came|made|average of", ("total_r", "mean_r"), result)
    yield Subject(r"sizes?", ("average_multiplier",), _sign(facts.number("average_multiplier") - 1))
    yield Subject(r"drawdown", ("max_drawdown",), frozenset())
