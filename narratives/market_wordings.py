"""What a market is doing, in every way that may be told.

Knows nothing of who chooses. The first option of every choice is the template's; no digit is written here.
"""

from __future__ import annotations

from collections.abc import Iterable

from narratives.choices import Phrase, in_either_order
from narratives.facts import Facts
from narratives.grades import trend_word


def market_narrative(facts: Facts) -> Iterable[str | Phrase]:
    """Course, direction, place in the range, width, volume, swings."""
    momentum = facts.number("mom_20")
    course = "rising" if momentum >= 0.5 else "falling" if momentum <= -0.5 else "moving sideways"
    yield (
        f"[$symbol is|Prices of $symbol are] {course}: [momentum over $trend_window is $mom_20|over "
        f"$trend_window, momentum is $mom_20], and the trend is {trend_word(facts)} (efficiency ratio "
        "$trend_strength)."
    )
    short = facts.number("mom_5")
    if course != "moving sideways" and short * momentum < 0 and abs(short) >= 0.5:
        yield "Over the last $short_window momentum has [turned the other way|reversed] ($mom_5)."
    ahead = "upward" if facts.number("adx_direction") > 0 else "downward"
    directional = (
        f"with {ahead} movement [ahead|in the lead]"
        if facts.number("adx") >= 20
        else "too [low|weak] to show a direction"
    )
    rsi = facts.number("rsi")
    state = "overbought" if rsi >= 70 else "oversold" if rsi <= 30 else "neither overbought nor oversold"
    place = "the close [lies|stands] at $range_position of its range over $trend_window"
    yield in_either_order([f"ADX is $adx, {directional}."], [f"RSI is $rsi, {state}, and {place}."])
    yield (
        "[The average true range is|On average, the true range is] $atr_ratio of price, and the Bollinger "
        "bands [span|cover] $bb_width of it."
    )
    yield from _volume(facts)
    yield from _structure(facts)


def _volume(facts: Facts) -> Iterable[str]:
    """Nothing where volume is constant or missing: its features are neutral then."""
    spike = facts.number("vol_spike")
    if spike == 0 and facts.number("vol_trend") == 0:
        return
    level = "the same as" if facts.text("vol_ratio_5_20") == "1 times" else "$vol_ratio_5_20 that"
    yield f"[Average|Mean] volume over $short_window is {level} over $trend_window."
    if abs(spike) >= 2:
        size = "high" if spike > 0 else "low"
        yield f"The last bar's volume [is unusually|stands out as] {size} ($vol_spike)."


def _structure(facts: Facts) -> Iterable[str]:
    highs, lows = facts.number("higher_highs") - 0.5, facts.number("lower_lows") - 0.5
    if highs * lows < 0:
        course = "rising" if highs > 0 else "falling"
        yield f"[Swing highs and swing lows|Highs and lows of the swings] are {course}."
    elif highs * lows > 0:
        yield f"[The|Price] swings are {'widening' if highs > 0 else 'narrowing'}."
    reversion = facts.number("mean_reversion")
    if abs(reversion) >= 0.1:
        habit = "reverse" if reversion > 0 else "continue"
        yield (
            "[Moves over the last $structure_window have|Over the last $structure_window, moves have] "
            f"tended to {habit} (mean-reversion score $mean_reversion)."
        )
