"""The facts a narrative may tell: every value, its unit and the one string that may stand for it in a text.

Knows nothing of sentences. Whoever writes the text, its numbers are filled in from these strings or found
out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from string import Template
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt

from market.errors import InputError
from narratives.contexts import DecisionDetails, MarketContext, PerformanceContext, Rung, checked
from narratives.reasons import Reason, break_even, ranked, reward_to_risk

Kind = Literal["market_narrative", "trade_rationale", "risk_assessment", "performance_summary"]
Value = StrictInt | FiniteFloat | str
SMALLEST_SHOWN: Final = 1e-4  # what is nearer to zero is "about 0"


class Fact(BaseModel):
    """One value, its unit and its display: the only form in which it may enter a text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    value: Value
    unit: str
    display: Annotated[str, Field(min_length=1)]


class Facts(BaseModel):
    """Everything a narrative of this kind may tell, and the readings that speak for and against the trade."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    facts: tuple[Fact, ...]
    reasons: tuple[Reason, ...] = ()

    @cached_property
    def by_name(self) -> Mapping[str, Fact]:
        """The facts by their names."""
        return {fact.name: fact for fact in self.facts}

    def __contains__(self, name: str) -> bool:
        return name in self.by_name

    def number(self, name: str) -> float:
        """The value of a numeric fact."""
        return float(self.by_name[name].value)

    def text(self, name: str) -> str:
        """The display of a fact."""
        return self.by_name[name].display

    def fill(self, template: str) -> str:
        """`template` with every $name replaced by that fact's display."""
        return Template(template).substitute(self._displays)

    @cached_property
    def _displays(self) -> Mapping[str, str]:
        return {fact.name: fact.display for fact in self.facts}


def compute(kind: Kind, context: Mapping[str, Any]) -> Facts:
    """The facts of `context` for a narrative of `kind`; `InputError` naming the field that is wrong.

    A trade_rationale and a risk_assessment take a decision's details, the others a context of their own
    (narratives.contexts).
    """
    if kind in ("trade_rationale", "risk_assessment"):
        details = checked(DecisionDetails, context)
        return Facts(kind=kind, facts=tuple(_decision(details)), reasons=ranked(details.observation))
    if kind == "market_narrative":
        return Facts(kind=kind, facts=tuple(_market(checked(MarketContext, context))))
    if kind == "performance_summary":
        return Facts(kind=kind, facts=tuple(_performance(checked(PerformanceContext, context))))
    raise InputError("kind", kind, f"give one of {', '.join(Kind.__args__)}")  # type: ignore[attr-defined]


def ungrounded_numbers(text: str, facts: Facts) -> list[str]:
    """The numbers in `text`, in digits or in words, that are not whole displays of `facts`; in their order.

    A number grounded in a fact must stand as that fact's display does: sign, decimals, unit and all. "1.25%"
    is not "1.25x", nor is "-0.3" the "0.3" inside it.
    """
    shown = sorted(
        {fact.display for fact in facts.facts if _NUMBER.search(fact.display)}, key=len, reverse=True
    )
    if shown:
        text = re.sub(f"{_NOT_AFTER}(?:{'|'.join(map(re.escape, shown))}){_NOT_BEFORE}", " ", text)
    return [match.group().rstrip(".,:") for match in _NUMBER.finditer(text)]


_WORDS: Final = (
    "zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|"
    "(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|million|billion|half|quarter|dozen|"
    "doubled?|twice|tripled?|thrice"
)
# \d finds the digits of every script; the ranges are superscripts, fractions and Roman or circled numerals.
_DIGIT: Final = "[\\d²³¹¼-¾⁰-₉⅐-↉①-⓿㊀-㊿]"
_NUMBER: Final = re.compile(rf"[-+−]?[$€£]?[.,]?{_DIGIT}[\w.,:%]*|\b(?:{_WORDS})s?\b", re.IGNORECASE)
# What would make another number, or another quantity, of a display that stands next to it.
_UNITS: Final = (
    r"%|percent|per cent|bps?\b|basis point|x\b|times\b|R\b|ATR\b|hundred|thousand|million|billion"
)
_NOT_AFTER: Final = r"(?<![\w$€£%+−–.-])(?<![\d][,:/])"
_NOT_BEFORE: Final = rf"(?![\w%])(?![.,:/–-]\d)(?!\s?(?:{_UNITS}))"


def _decision(details: DecisionDetails) -> Iterable[Fact]:
    yield _text("symbol", details.symbol)
    yield _text("side", details.side)
    yield _text("action", details.action)
    yield _multiple("multiplier", details.multiplier)
    if details.proposed_multiplier is not None:
        yield _multiple("proposed_multiplier", details.proposed_multiplier)
    yield _multiple("rule_cap", details.rule_cap)
    yield _text("binding_rule", details.binding_rule)
    yield _text("source", details.source)
    yield _text("model_status", details.model_status)
    for name in ("base_risk", "risk_fraction"):
        yield _fact(
            name, getattr(details, name), "fraction of equity", f"{_down(100 * getattr(details, name))}%"
        )
    yield from _observed(details.observation)
    yield from _runner_up(details)
    yield from _blocked(details.ladder)


_SHARES: Final = {
    "volatility_regime": "rank among the training bars",
    "signal_confidence": "probability",
    "current_exposure_pct": "share of the exposure limit",
    "win_rate_recent": "share of trades",
    "drawdown_pct": "share of the drawdown limit",
    "max_position_pct": "share of the largest size",
    "remaining_daily_risk": "share of the daily budget",
    "session_left": "share of a usual session",
}


def _observed(observation: Mapping[str, float | None]) -> Iterable[Fact]:
    known = {name: value for name, value in observation.items() if value is not None}
    for name, unit in _SHARES.items():
        if name in known:
            yield _percent(name, known[name], unit)
    if "trend_strength" in known:
        yield _fact(
            "trend_strength", known["trend_strength"], "efficiency ratio", number(known["trend_strength"])
        )
    if "momentum_score" in known:
        score = known["momentum_score"]
        yield _fact("momentum_score", score, "score in the trade's direction", number(score, signed=True))
    if "entry_quality" in known:
        distance = known["entry_quality"]
        clipped = " or more" if abs(distance) >= 1 else ""
        yield _fact("entry_quality", distance, "ATR", f"{number(abs(distance))} ATR{clipped}")
    if "risk_reward_ratio" in known:
        field = known["risk_reward_ratio"]
        ratio, limit = reward_to_risk(field), break_even(field)
        lead = "at least " if field >= 1 else "at most " if field <= -1 else ""
        yield _fact("reward_to_risk", ratio, "target over stop distance", f"{lead}{number(ratio)} times")
        bound = " or less" if field >= 1 else " or more" if field <= -1 else ""
        yield _fact("break_even", limit, "share of trades", f"{number(100 * limit, 1)}%{bound}")


def _runner_up(details: DecisionDetails) -> Iterable[Fact]:
    """The legal size the policy valued next, if it valued the chosen one highest."""
    legal = [(rung.value, rung) for rung in details.ladder if rung.legal and rung.value is not None]
    chosen = [value for value, rung in legal if rung.action == details.action]
    others = sorted(
        ((value, rung) for value, rung in legal if rung.action != details.action), key=lambda pair: -pair[0]
    )
    if chosen and others and chosen[0] > others[0][0]:
        value, rung = others[0]
        yield _text("runner_up", f"{rung.action} ({_times(rung.size)})")
        yield _fact(
            "runner_up_margin", chosen[0] - value, "value of the policy", number(chosen[0] - value, 3)
        )


def _blocked(ladder: Iterable[Rung]) -> Iterable[Fact]:
    """The sizes each rule blocks, in one fact a rule."""
    groups: dict[str, list[str]] = {}
    for rung in ladder:
        if not rung.legal:
            groups.setdefault(rung.blocked_by or "unknown", []).append(f"{rung.action} ({_times(rung.size)})")
    for rule, sizes in groups.items():
        yield Fact(name=f"blocked_by_{_slug(rule)}", value=rule, unit="rule", display=listed(sizes))


def _market(context: MarketContext) -> Iterable[Fact]:
    features = context.features
    yield _text("symbol", context.symbol)
    for name, bars in (("trend_window", 20), ("short_window", 5), ("structure_window", 100)):
        yield _fact(name, bars, "bars", f"{bars} bars")
    for name in ("mom_5", "mom_20", "vol_spike"):
        yield _deviations(name, getattr(features, name))
    yield _percent("atr_ratio", features.atr_ratio, "fraction of price", places=2)
    yield _percent("bb_width", features.bb_width, "fraction of price", places=2)
    yield _percent("range_position", features.range_position, "share of the range")
    ratio = features.vol_ratio_5_20
    yield _fact("vol_ratio_5_20", ratio, "ratio", f"{number(ratio)} times")
    yield _fact("rsi", 50 + 50 * features.rsi_norm, "RSI points", number(50 + 50 * features.rsi_norm, 1))
    yield _fact("adx", 100 * features.adx_norm, "ADX points", number(100 * features.adx_norm, 1))
    for name in ("vol_trend", "adx_direction", "mean_reversion"):
        yield _fact(name, getattr(features, name), "score", number(getattr(features, name), signed=True))
    yield _fact(
        "trend_strength", features.trend_strength, "efficiency ratio", number(features.trend_strength)
    )
    for name in ("higher_highs", "lower_lows"):
        yield _percent(name, getattr(features, name), "share of swings")


def _performance(context: PerformanceContext) -> Iterable[Fact]:
    yield _text("subject", context.symbol or "all symbols")
    yield _text("period", context.period)
    count = f"{context.trades:,} trade{'' if context.trades == 1 else 's'}"
    yield _fact("trades", context.trades, "trades", count)
    if context.trades == 0:
        return
    figures = {name: getattr(context, name) for name in PerformanceContext.model_fields}
    for name in ("win_rate", "mean_r", "total_r", "max_drawdown", "average_multiplier"):
        if figures[name] is None:
            raise InputError(name, None, "give the figure: there were trades")
    yield _percent("win_rate", figures["win_rate"], "share of trades")
    for name in ("mean_r", "total_r"):
        yield _fact(name, figures[name], "R", f"{number(figures[name], signed=True)} R")
    yield _percent("max_drawdown", figures["max_drawdown"], "fraction of equity", places=2)
    yield _multiple("average_multiplier", figures["average_multiplier"])


def number(value: float, places: int = 2, *, signed: bool = False) -> str:
    """`value` to `places` decimals, no trailing zeros; small ones to two digits, tiny ones as "about 0"."""
    if value != 0 and abs(value) < SMALLEST_SHOWN:
        return "about 0"
    small = 0 < abs(value) < 0.5 * 10.0**-places
    text = f"{value:.2g}" if small else f"{value:,.{places}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    if text in ("0", "-0"):
        return "0"
    return f"+{text}" if signed and value > 0 else text


def listed(items: Iterable[str]) -> str:
    """`a`, `a and b`, or `a, b, and c`."""
    *head, last = items
    if not head:
        return last
    return f"{', '.join(head)}{',' if len(head) > 1 else ''} and {last}"


def _fact(name: str, value: Value, unit: str, display: str) -> Fact:
    return Fact(name=name, value=value, unit=unit, display=display)


def _text(name: str, value: str) -> Fact:
    return _fact(name, value, "text", value)


def _down(value: float) -> str:
    """`value` rounded down: no size reads larger than its cap, and no cap like a size it blocks."""
    return number(math.floor(1000 * value + 1e-6) / 1000 or value, 3)


def _times(size: float) -> str:
    return f"{_down(size)}x"


def _multiple(name: str, value: float) -> Fact:
    return _fact(name, value, "multiple of the base position", _times(value))


def _percent(name: str, value: float, unit: str, places: int = 1) -> Fact:
    return _fact(name, value, unit, f"{number(100 * value, places)}%")


def _deviations(name: str, value: float) -> Fact:
    text = number(value, signed=True)
    plural = "" if text in ("+1", "-1") else "s"
    return _fact(name, value, "standard deviations", f"{text} standard deviation{plural}")


def _slug(rule: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", rule.lower()).strip("_") or "unknown"
