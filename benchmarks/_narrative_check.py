"""Whether a narrative says what its context holds, judged from the finished text and the raw values alone.

Shares no code with the narratives but the names of the guardrail's rules: numbers are read back out of the
text and compared with the raw values of their unit, directions against expressions of their own.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from narratives.rule_words import RULE_WORDS

NUMBER: Final = re.compile(
    r"(?<![\w.])([+-]?\d[\d,]*(?:\.\d+)?)(\s?(?:%|x\b|times\b|ATR\b|R\b|bars?\b|trades?\b|standard dev))?"
)
COUNTED: Final = re.compile(
    r"\b(two|three|four|five|six|seven|eight|nine|ten|dozen|twice|double|half|hundred|thousand|million)\b",
    re.I,
)
DIRECTED: Final = re.compile(
    r"\b(long|short|rising|falling|above|below|high|higher|low|lower|clear|weak|little|against|"
    r"with the trade|more than|less than|upward|downward|overbought|oversold|widening|narrowing|profit|loss|"
    r"small|reverse|continue|sideways|same way|direction of)\b"
)
# Holds such a word, tells no direction.
PLAIN: Final = re.compile(
    r"no more than|guard against unfamiliar input|the rule against skipping|speaks clearly|"
    r"(?<=show a )direction"
)
Judge = Callable[[re.Match[str]], bool]
Allowed = dict[str, list[tuple[float, float]]]  # unit -> values and by how much the text may be off


def wrong(text: str, context: Mapping[str, Any]) -> list[str]:
    """What `text` says that `context` does not: numbers, number words, directions."""
    for own in (context.get("symbol"), context.get("period")):
        text = text.replace(own, "it") if own else text
    return [*_wrong_numbers(text, context), *COUNTED.findall(text), *_wrong_directions(text, context)]


def incomplete(text: str, context: Mapping[str, Any]) -> bool:
    """Whether a trade rationale leaves out the size, the rule that bound it, or its reasons."""
    sizes = [float(size) for size in re.findall(r"([\d.]+)x", text)]
    has_size = any(0 <= context["multiplier"] - size < 0.0011 for size in sizes)
    has_reasons = len(re.findall(r"\bthat\b", text)) >= 2 or "on the other side is that" in text
    return not (has_size and RULE_WORDS[context["binding_rule"]] in text and has_reasons)


def _wrong_numbers(text: str, context: Mapping[str, Any]) -> Iterator[str]:
    allowed = (
        _decided(context)
        if "side" in context
        else _seen(context)
        if "features" in context
        else _closed(context)
    )
    for match in NUMBER.finditer(text):
        value, unit = float(match[1].replace(",", "")), (match[2] or "").strip().rstrip("s")
        if not any(abs(value - true) <= off for true, off in allowed.get(unit, [])):
            yield match.group()
    for expression, true, off in _named(context) if "side" in context else []:
        for match in re.finditer(expression, text):
            if abs(float(match[match.lastindex or 1]) - true) > off:
                yield match.group()


def _named(context: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Numbers of a decision that stand beside what they are the figure of."""
    seen = context["observation"]
    yield r"([\d.]+)% of equity", 100 * context["risk_fraction"], 0.0011
    yield r"base risk of ([\d.]+)%", 100 * context["base_risk"], 0.0011
    yield r"trade at ([\d.]+)x|size(?: is|,) ([\d.]+)x", context["multiplier"], 0.0011
    yield r"(?:at most|more than|up to) ([\d.]+)x", context["rule_cap"], 0.0011
    for words, name in (
        (r"rank ([\d.]+)%", "volatility_regime"),
        (r"chance of a win(?:,| is) ([\d.]+)%", "signal_confidence"),
        (r"([\d.]+)% of the exposure limit", "current_exposure_pct"),
        (r"win rate(?:,| is) ([\d.]+)%", "win_rate_recent"),
        (r"drawdown (?:is at|stands at|has used) ([\d.]+)%|([\d.]+)% of the way", "drawdown_pct"),
        (r"([\d.]+)% of the daily risk budget", "remaining_daily_risk"),
    ):
        yield words, 100 * seen[name], 0.051


def _decided(context: Mapping[str, Any]) -> Allowed:
    observed = context["observation"]
    ratio = 2 + observed["risk_reward_ratio"]
    sizes = [context["multiplier"], context["rule_cap"], *(rung["size"] for rung in context["ladder"])]
    if context["proposed_multiplier"] is not None:
        sizes.append(context["proposed_multiplier"])
    shares = (
        "volatility_regime", "signal_confidence", "current_exposure_pct", "win_rate_recent", "drawdown_pct",
        "remaining_daily_risk",
    )  # fmt: skip
    values = sorted(rung["value"] or 0.0 for rung in context["ladder"] if rung["legal"])
    margin = [(values[-1] - values[-2], 0.00051)] if len(values) > 1 else []
    risks = [context["base_risk"], context["risk_fraction"]]
    return {
        "x": [(size, 0.0011) for size in sizes],
        "%": [(100 * observed[name], 0.051) for name in shares]
        + [(100 / (1 + ratio), 0.051)]
        + [(100 * risk, 0.0011) for risk in risks],
        "time": [(ratio, 0.0051)],
        "ATR": [(abs(observed["entry_quality"]), 0.0051)],
        "": [(observed["trend_strength"], 0.0051), (observed["momentum_score"], 0.0051), *margin],
    }


def _seen(context: Mapping[str, Any]) -> Allowed:
    seen = context["features"]
    return {
        "standard dev": [(seen[name], 0.0051) for name in ("mom_5", "mom_20", "vol_spike")],
        "bar": [(bars, 0) for bars in (5, 20, 100)],
        "%": [
            (100 * seen["atr_ratio"], 0.0051), (100 * seen["bb_width"], 0.0051),
            (100 * seen["range_position"], 0.051),
        ],
        "time": [(seen["vol_ratio_5_20"], 0.0051)],
        "": [
            (50 + 50 * seen["rsi_norm"], 0.051), (100 * seen["adx_norm"], 0.051),
            (seen["trend_strength"], 0.0051), (seen["mean_reversion"], 0.0051),
        ],
    }  # fmt: skip


def _closed(context: Mapping[str, Any]) -> Allowed:
    return {
        "trade": [(context["trades"], 0)],
        "%": [(100 * context["win_rate"], 0.051), (100 * context["max_drawdown"], 0.0051)],
        "R": [(context["mean_r"], 0.0051), (context["total_r"], 0.0051)],
        "x": [(context["average_multiplier"], 0.0011)],
    }


def _wrong_directions(text: str, context: Mapping[str, Any]) -> Iterator[str]:
    """Directions that the raw values contradict, and words of direction that no expression accounts for."""
    judges = _judges(context)
    rest = PLAIN.sub(lambda match: " " * len(match.group()), text)
    for expression, judge in judges:
        for match in re.finditer(expression, rest):
            if not judge(match):
                yield match.group()
        rest = re.sub(expression, lambda match: "~" * len(match.group()), rest)
    yield from DIRECTED.findall(rest)


def _is(words: Mapping[str, bool]) -> Judge:
    """Right where the word that was found is true."""
    return lambda match: words[match[1]]


def _judges(context: Mapping[str, Any]) -> list[tuple[str, Judge]]:
    if "side" in context:
        return _of_decisions(context)
    if "features" in context:
        return _of_markets(context["features"])
    rate, trades = context["win_rate"], context["trades"]
    return [
        (r"(all|none) of them (?:at|with) a profit", _is({"all": rate == 1, "none": rate == 0})),
        (r"(without) a profit", _is({"without": trades == 1 and rate == 0})),
        (r"(?:at|with) a (profit)", _is({"profit": rate > 0})),
    ]


def _of_decisions(context: Mapping[str, Any]) -> list[tuple[str, Judge]]:
    seen = context["observation"]
    side = 1 if context["side"] == "long" else -1
    score, trend, rank = seen["momentum_score"], seen["trend_strength"], seen["volatility_regime"]
    even = 1 / (3 + seen["risk_reward_ratio"])
    proposed = context["proposed_multiplier"]
    used = max(seen["current_exposure_pct"], seen["drawdown_pct"], 1 - seen["remaining_daily_risk"])
    return [
        (r"\b(long|short)\b", _is({"long": side == 1, "short": side == -1})),
        (r"a (clear|moderate) trend", _is({"clear": trend >= 0.5, "moderate": 0.25 <= trend < 0.5})),
        (r"the trend is (weak)|there is little trend", lambda match: trend < 0.25),
        (r"runs in the direction of the trade|points the same way as the trade", lambda match: score >= 0),
        (r"(?<!momentum )(?:runs|points) against the trade", lambda match: score < 0),
        (r"momentum (?:runs|is) (with|against) the trade", _is({"with": score > 0, "against": score < 0})),
        (
            r"prices have been (rising|falling)",
            _is({"rising": score * side > 0, "falling": score * side < 0}),
        ),
        (
            r"olatility is (rather high|high|rather low|low|moderate)",
            _is({
                "high": rank >= 0.75, "rather high": 0.5 < rank < 0.75, "low": rank <= 0.25,
                "rather low": 0.25 < rank < 0.5, "moderate": abs(rank - 0.5) < 0.07,
            }),
        ),
        (
            r"(above|below) the break-even rate",
            _is({"above": seen["signal_confidence"] > even, "below": seen["signal_confidence"] < even}),
        ),
        (
            r"(more|less) than the target and the stop need",
            _is({"more": seen["win_rate_recent"] > even, "less": seen["win_rate_recent"] < even}),
        ),
        (
            r"(above|below) the entry level",
            _is({"above": seen["entry_quality"] * side > 0, "below": seen["entry_quality"] * side < 0}),
        ),
        (r"is only [\d.]+ times as far", lambda match: seen["risk_reward_ratio"] < 0),
        (r"for a small size", lambda match: proposed is not None and 0 < proposed < 1),
        (
            r"limits is (low|moderate|high|very high)",
            _is({
                "low": used < 0.25, "moderate": 0.25 <= used < 0.5, "high": 0.5 <= used < 0.8,
                "very high": used >= 0.8,
            }),
        ),
    ]  # fmt: skip


def _of_markets(seen: Mapping[str, float]) -> list[tuple[str, Judge]]:
    slow, rsi = seen["mom_20"], 50 + 50 * seen["rsi_norm"]
    highs, lows = seen["higher_highs"] - 0.5, seen["lower_lows"] - 0.5
    trend, directed = seen["trend_strength"], 100 * seen["adx_norm"] >= 20
    return [
        (
            r"^(?:Prices of it are|it is) (rising|falling|moving sideways)",
            _is({"rising": slow >= 0.5, "falling": slow <= -0.5, "moving sideways": abs(slow) < 0.5}),
        ),
        (
            r"trend is (clear|moderate|weak)",
            _is({"clear": trend >= 0.5, "moderate": 0.25 <= trend < 0.5, "weak": trend < 0.25}),
        ),
        (
            r"with (upward|downward) movement",
            _is({
                "upward": directed and seen["adx_direction"] > 0,
                "downward": directed and seen["adx_direction"] <= 0,
            }),
        ),
        (r"too (low|weak) to show a", lambda match: not directed),
        (r"neither overbought nor oversold", lambda match: 30 < rsi < 70),
        (r"(overbought|oversold)", _is({"overbought": rsi >= 70, "oversold": rsi <= 30})),
        (
            r"volume (?:is unusually|stands out as) (high|low)",
            _is({"high": seen["vol_spike"] >= 2, "low": seen["vol_spike"] <= -2}),
        ),
        (
            r"(?:wing highs and swing lows|ighs and lows of the swings) are (rising|falling)",
            _is({"rising": highs > 0 > lows, "falling": highs < 0 < lows}),
        ),
        (
            r"swings are (widening|narrowing)",
            _is({"widening": highs > 0 and lows > 0, "narrowing": highs < 0 and lows < 0}),
        ),
        (
            r"tended to (reverse|continue)",
            _is({"reverse": seen["mean_reversion"] > 0, "continue": seen["mean_reversion"] < 0}),
        ),
    ]  # fmt: skip
