import ast
import inspect
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.guardrails import RULES, SIZES, TIERS, Account, Limits, allowed, bound, cap, floor_to_tier
from narratives import market_wordings, performance_wordings, rationale_wordings, risk_wordings, template
from narratives.contexts import MarketFeatures
from narratives.facts import compute, ungrounded_numbers
from narratives.rule_words import RULE_WORDS
from narratives.template import write
from policies.decision import ladder
from tests.test_narratives_facts import DECISION, FEATURES, OBSERVATION, PERFORMANCE

SHARES = st.floats(0, 1)
SIGNED = st.floats(-1, 1)


@st.composite
def decisions(draw):
    """Decisions as the guardrail makes them, from any account and any proposal."""
    limits = Limits(
        base_risk=draw(st.sampled_from([0.005, 0.0075, 0.01, 0.02])),
        rule_cap=draw(st.sampled_from([0.5, 1.0, 1.5])),
        allow_skip=draw(st.booleans()),
    )
    drawdown, open_risk, used = draw(st.floats(0, 0.25)), draw(st.floats(0, 0.07)), draw(st.floats(0, 0.06))
    equity = draw(st.sampled_from([1.0, -1.0])) if draw(st.integers(0, 19)) == 0 else 1.0 - drawdown
    account = Account(equity, 1.0, open_risk, used, draw(st.integers(0, 32)))
    largest, cap_rule = cap(account, limits)
    by_model = draw(st.booleans())
    proposed = draw(st.sampled_from([*SIZES, np.nan]) | st.floats(0, 1.5)) if by_model else 1.0
    strange = draw(st.booleans())
    guarded = bound(
        [proposed], largest, cap_rule, limits, snap=draw(st.booleans()), out_of_distribution=strange
    )
    multiplier, mask = float(guarded.multiplier[0]), allowed(largest, limits)[0]
    values = draw(st.lists(SIGNED, min_size=6, max_size=6)) if by_model else None
    observation = {
        "trend_strength": draw(SHARES),
        "volatility_regime": draw(SHARES),
        "momentum_score": draw(SIGNED),
        "signal_confidence": draw(SHARES),
        "entry_quality": draw(SIGNED),
        "risk_reward_ratio": draw(SIGNED),
        "current_exposure_pct": min(open_risk / 0.06, 1.0),
        "win_rate_recent": draw(SHARES),
        "drawdown_pct": min(drawdown / 0.2, 1.0),
        "max_position_pct": float(largest[0]) / 1.5,
        "remaining_daily_risk": max(1 - used / 0.05, 0.0),
        "session_left": draw(SHARES),
    }
    return {
        "symbol": draw(st.sampled_from(["EURUSD", "US500", "BRK.B"])),
        "side": draw(st.sampled_from(["long", "short"])),
        "action": TIERS[int(floor_to_tier(np.array([multiplier]))[0])],
        "multiplier": multiplier,
        "proposed_multiplier": None if np.isnan(proposed) else float(proposed),
        "rule_cap": float(largest[0]),
        "binding_rule": RULES[guarded.binding[0]],
        "source": "model" if by_model else "rule",
        "model_status": draw(st.sampled_from(["PRODUCTION", "STAGING"])) if by_model else "none",
        "base_risk": limits.base_risk,
        "risk_fraction": multiplier * limits.base_risk,
        "observation": observation,
        "ladder": ladder(values, mask.tolist(), RULES[cap_rule[0]]),
    }


@st.composite
def markets(draw):
    wide = {"mom_5", "mom_20", "vol_spike"}
    features = {
        name: draw(st.floats(-4, 4) if name in wide else SIGNED) for name in MarketFeatures.model_fields
    }
    return {"symbol": "EURUSD", "features": features | {"atr_ratio": draw(st.floats(0, 0.3))}}


@st.composite
def performances(draw):
    trades = draw(st.integers(0, 2000))
    figures = {
        "win_rate": draw(SHARES),
        "mean_r": draw(st.floats(-3, 3)),
        "total_r": draw(st.floats(-3e3, 3e3)),
    }
    account = {"max_drawdown": draw(SHARES), "average_multiplier": draw(st.floats(0, 1.5))}
    period = draw(st.sampled_from(["2017", "last 30 days", "2017-01-01 to 2017-06-30"]))
    symbol = draw(st.none() | st.sampled_from(["EURUSD", "US500"]))
    return {"symbol": symbol, "trades": trades, "period": period} | figures | account


TOLD = (
    st.tuples(st.sampled_from(["trade_rationale", "risk_assessment"]), decisions())
    | st.tuples(st.just("market_narrative"), markets())
    | st.tuples(st.just("performance_summary"), performances())
)


@given(TOLD)
def test_every_narrative_is_grounded_and_well_formed(told):
    kind, context = told
    facts = compute(kind, context)
    text = write(facts)
    assert ungrounded_numbers(text, facts) == []
    assert write(compute(kind, context)) == text
    assert "$" not in text
    assert "_" not in text
    assert not re.search(r"\s\s|\s[.,;:]|\.\.|,,|\(\)|\bnan\b|\binf\b|None", text)
    assert not re.search(r"\b1 (?!times|ATR)\w+s\b|\b(?!1 )\d+ trade\b|\ban? [\d+-]", text)
    for sentence in re.split(r"(?<=\.) (?=\D)", text):
        assert re.match(r"[A-Z^]", sentence), sentence
        assert sentence.endswith(".")


@given(decisions())
def test_a_rationale_names_size_side_binding_rule_and_the_two_strongest_reasons(details):
    facts = compute("trade_rationale", details)
    text = write(facts)
    first, rest = re.split(r"(?<=[.)%]) ?(?<=\.) (?=[A-Z])", text, maxsplit=1)
    assert f"{facts.text('multiplier')}" in first
    assert details["action"] in first
    assert first.startswith("Skip" if details["multiplier"] == 0 else "Take")
    assert RULE_WORDS[details["binding_rule"]] in rest
    assert rest.count("that ") >= min(len(facts.reasons), 2)


@given(TOLD)
def test_no_narrative_speaks_of_the_other_side(told):
    kind, context = told
    text = write(compute(kind, context)).lower()
    other = {"long": "short", "short": "long"}.get(context.get("side", ""))
    if other:
        assert re.search(rf"\b{context['side']}\b", text)
        assert not re.search(rf"\b{other}\b", text)
    assert not re.search(r"\b(buy|sell|bullish|bearish)\b", text)


@pytest.mark.parametrize(
    ("side", "score", "words"),
    [
        ("long", 0.6, "momentum runs with the trade, as prices have been rising (score +0.6)"),
        ("long", -0.6, "momentum runs against the trade, as prices have been falling (score -0.6)"),
        ("short", 0.6, "momentum runs with the trade, as prices have been falling (score +0.6)"),
        ("short", -0.6, "momentum runs against the trade, as prices have been rising (score -0.6)"),
    ],
)
def test_momentum_is_told_for_the_side_of_the_trade(side, score, words):
    context = DECISION | {"side": side, "observation": {"momentum_score": score}}
    assert words in write(compute("trade_rationale", context))


@pytest.mark.parametrize(
    ("side", "quality", "words"),
    [
        ("long", 0.5, "the close is 0.5 ATR above the entry level"),
        ("long", -0.5, "the close is 0.5 ATR below the entry level"),
        ("short", 0.5, "the close is 0.5 ATR below the entry level"),
        ("short", -1.0, "the close is 1 ATR or more above the entry level"),
    ],
)
def test_the_entry_is_told_for_the_side_of_the_trade(side, quality, words):
    context = DECISION | {"side": side, "observation": {"entry_quality": quality}}
    assert words in write(compute("trade_rationale", context))


READINGS = {
    "trend_strength": ("a clear trend runs in the direction of the trade (efficiency ratio 0.9)", 0.9),
    "volatility_regime": ("volatility is high (rank 93% among the training bars)", 0.93),
    "risk_reward_ratio": ("the target is no farther away than the stop", -1.0),
    "current_exposure_pct": ("open risk already uses 35% of the exposure limit", 0.35),
    "drawdown_pct": ("the account is 40% of the way to its drawdown limit", 0.4),
    "remaining_daily_risk": ("only 20% of the daily risk budget is left", 0.2),
}


def test_a_daily_budget_that_is_used_up_is_told_without_a_figure():
    used_up = {"observation": {"remaining_daily_risk": 0.0}}
    told = write(compute("trade_rationale", DECISION | used_up))
    assert "that none of the daily risk budget is left." in told


@pytest.mark.parametrize("field", READINGS)
def test_each_reading_has_its_words(field):
    words, value = READINGS[field]
    assert words in write(compute("trade_rationale", DECISION | {"observation": {field: value}}))


@pytest.mark.parametrize(
    ("chance", "win_rate", "words"),
    [
        (0.5, None, "the estimated chance of a win, 50%, is above the break-even rate of 33.3% before costs"),
        (0.2, None, "the estimated chance of a win, 20%, is below the break-even rate of 33.3% before costs"),
        (None, 0.6, "the recent win rate, 60%, is more than the target and the stop need to break even"),
        (None, 0.1, "the recent win rate, 10%, is less than the target and the stop need to break even"),
    ],
)
def test_chances_are_told_beside_what_breaks_even(chance, win_rate, words):
    observation = {"signal_confidence": chance, "win_rate_recent": win_rate, "risk_reward_ratio": 0.0}
    assert words in write(compute("trade_rationale", DECISION | {"observation": observation}))


def rationale(**changes):
    return write(compute("trade_rationale", DECISION | changes))


def test_a_rationale_reads_like_this():
    assert rationale() == (
        "Take the long EURUSD trade at the standard size, 1x (STANDARD), risking 1% of equity. "
        "The STAGING model proposed 1.5x, but the daily risk budget allows at most 1.2x. "
        "The strongest reasons to take it are that the estimated chance of a win, 47%, is above the "
        "break-even rate of 28.6% before costs, and that momentum runs with the trade, as prices have been "
        "rising (score +0.62). "
        "In the model's values, STANDARD leads the next-best legal size, SMALL (0.5x), by 0.02."
    )


def test_a_skipped_trade_reads_like_this():
    skipped = {"multiplier": 0.0, "action": "SKIP", "risk_fraction": 0.0, "ladder": []}
    assert rationale(**skipped, proposed_multiplier=0.0, binding_rule="none") == (
        "Skip the long EURUSD trade: the size is 0x (SKIP), so no equity is put at risk. "
        "The STAGING model proposed to skip it; no limit bound it, and up to 1.2x was allowed. "
        "The strongest reasons to stay out are that volatility is high (rank 93% among the training bars), "
        "and that 62% of the daily risk budget is all that is left."
    )
    nothing = rationale(**skipped, proposed_multiplier=0.0, binding_rule="none", rule_cap=0.0)
    assert "proposed to skip it; no limit bound it, and nothing was allowed anyway." in nothing
    overruled = rationale(**skipped, rule_cap=0.0)
    assert "The STAGING model proposed 1.5x, but the daily risk budget leaves no room for it." in overruled
    assert "The strongest reasons for the proposal are that" in overruled


def test_without_a_model_no_reading_is_called_a_reason():
    text = rationale(source="rule", model_status="none", proposed_multiplier=1.0, binding_rule="none")
    assert (
        "No model had a say (model status: none), so the rule proposed its standard size; no limit bound it"
        in text
    )
    assert "The strongest readings, which the rule does not weigh, are that the estimated chance" in text
    assert "reason" not in text
    assert "model's values" not in text


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            "invalid_account",
            "proposed 1.5x, but the check of the account figures failed, so nothing may be risked.",
        ),
        ("invalid_limits", "proposed 1.5x, but the check of the limits failed, so nothing may be risked."),
        (
            "invalid_proposal",
            "gave no valid size, so the check of the proposal put the rule's standard size in its",
        ),
        (
            "out_of_distribution",
            "but the guard against unfamiliar input never lets such input raise the standard",
        ),
        ("skip_not_allowed", "but the rule against skipping demands the smallest size instead."),
        ("none", "proposed 1.5x, rounded down to 1x; no limit bound it, and up to 1.2x was allowed."),
        ("liquidity", "but the rule liquidity allows at most 1.2x."),
    ],
)
def test_each_binding_rule_has_its_words(rule, words):
    assert words in rationale(binding_rule=rule)


def test_every_rule_of_the_guardrail_has_words():
    assert set(RULES) <= set(RULE_WORDS)


def test_reasons_that_are_few_or_on_the_other_side_are_told_as_they_are():
    assert "No reading of the market or the account stands out." in rationale(observation={})
    one = rationale(observation={"momentum_score": 0.5, "drawdown_pct": 0.9})
    assert "The strongest reason to take it is that momentum runs with the trade" in one
    assert "The strongest reading on the other side is that the account is 90% of the way" in one
    none = rationale(observation={"drawdown_pct": 0.9})
    assert (
        "No reading clearly supports this; the strongest on the other side is that the account is 90%" in none
    )
    small = rationale(observation=OBSERVATION, proposed_multiplier=0.5)
    assert "The strongest reasons for a small size are that volatility is high" in small


def test_a_risk_assessment_reads_like_this():
    assert write(compute("risk_assessment", DECISION)) == (
        "The long EURUSD trade risks 1% of equity between entry and stop: 1x the base risk of 1%. "
        "The account's use of its limits is moderate: open risk stands at 35% of the exposure limit, "
        "drawdown stands at 20% of its limit, and 62% of the daily risk budget is left. "
        "The limits allow at most 1.2x now; the daily risk budget bound the size. "
        "The daily risk budget blocks MODERATE (1.25x) and AGGRESSIVE (1.5x). "
        "Volatility is high (rank 93% among the training bars)."
    )


def test_the_risk_of_a_fresh_account_is_told_without_zeros():
    fresh = {"current_exposure_pct": 0.0, "drawdown_pct": 0.0, "remaining_daily_risk": 1.0}
    changes = {
        "observation": fresh,
        "multiplier": 0.0,
        "action": "SKIP",
        "rule_cap": 0.0,
        "binding_rule": "max_position",
    }
    text = write(compute("risk_assessment", DECISION | changes))
    assert text.startswith("The long EURUSD trade is skipped (0x), so it adds no risk. ")
    assert "is low: no risk is open, there is no drawdown, and all of the daily risk budget is left." in text
    assert "The limits leave no room for a trade now; the position limit bound the size." in text


@pytest.mark.parametrize(
    ("most", "level"),
    [(0.1, "low"), (0.3, "moderate"), (0.6, "high"), (0.9, "very high"), (1.0, "very high")],
)
def test_the_level_of_risk_is_that_of_the_limit_used_most(most, level):
    for observation in ({"drawdown_pct": most}, {"remaining_daily_risk": 1 - most, "drawdown_pct": 0.0}):
        text = write(compute("risk_assessment", DECISION | {"observation": observation}))
        assert f"The account's use of its limits is {level}: " in text


@pytest.mark.parametrize(
    ("rank", "level"),
    [(0.1, "low"), (0.4, "rather low"), (0.5, "moderate"), (0.6, "rather high"), (0.8, "high")],
)
def test_volatility_is_graded_by_its_rank(rank, level):
    text = write(compute("risk_assessment", DECISION | {"observation": {"volatility_regime": rank}}))
    assert f"Volatility is {level} (rank" in text


def market(**changes):
    return write(compute("market_narrative", {"symbol": "EURUSD", "features": FEATURES | changes}))


def test_a_market_narrative_reads_like_this():
    features = {"mom_20": 1.31, "mom_5": -0.8, "adx_norm": 0.28, "rsi_norm": 0.24, "atr_ratio": 0.0012}
    rest = {
        "bb_width": 0.008,
        "range_position": 0.85,
        "vol_ratio_5_20": 1.4,
        "vol_spike": 2.31,
        "trend_strength": 0.58,
    }
    assert market(**features, **rest, higher_highs=1.0, lower_lows=0.0, mean_reversion=-0.2) == (
        "EURUSD is rising: momentum over 20 bars is +1.31 standard deviations, and the trend is clear "
        "(efficiency ratio 0.58). Over the last 5 bars momentum has turned the other way "
        "(-0.8 standard deviations). "
        "ADX is 28, with upward movement ahead. "
        "RSI is 62, neither overbought nor oversold, and the close lies at 85% of its range over 20 bars. "
        "The average true range is 0.12% of price, and the Bollinger bands span 0.8% of it. "
        "Average volume over 5 bars is 1.4 times that over 20 bars. "
        "The last bar's volume is unusually high (+2.31 standard deviations). "
        "Swing highs and swing lows are rising. "
        "Moves over the last 100 bars have tended to continue (mean-reversion score -0.2)."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mom_20": 0.6}, "EURUSD is rising:"),
        ({"mom_20": -0.6}, "EURUSD is falling:"),
        ({"mom_20": 0.1}, "EURUSD is moving sideways:"),
        ({"rsi_norm": 0.5}, "RSI is 75, overbought,"),
        ({"rsi_norm": -0.5}, "RSI is 25, oversold,"),
        ({"adx_norm": 0.1}, "ADX is 10, too low to show a direction."),
        ({"adx_direction": -0.5}, "ADX is 25, with downward movement ahead."),
        ({"higher_highs": 0.0, "lower_lows": 1.0}, "Swing highs and swing lows are falling."),
        ({"higher_highs": 1.0, "lower_lows": 1.0}, "The swings are widening."),
        ({"higher_highs": 0.0, "lower_lows": 0.0}, "The swings are narrowing."),
        ({"mean_reversion": 0.3}, "have tended to reverse (mean-reversion score +0.3)."),
        ({"vol_ratio_5_20": 1.0}, "Average volume over 5 bars is the same as over 20 bars."),
        ({"vol_spike": -2.5}, "The last bar's volume is unusually low (-2.5 standard deviations)."),
    ],
)
def test_a_market_is_told_in_these_words(changes, words):
    assert words in market(**changes)


def test_a_market_without_volume_is_told_without_it():
    assert "volume" not in market(vol_ratio_5_20=1.0, vol_trend=0.0, vol_spike=0.0)


def performance(**changes):
    return write(compute("performance_summary", PERFORMANCE | changes))


def test_a_performance_summary_reads_like_this():
    assert performance() == (
        "Results for all symbols (2017-01 to 2017-06): 1,234 trades were closed, 41.5% of them at a profit. "
        "The result was -139.72 R in total, -0.11 R a trade on average. "
        "The average size was 0.85x, and the largest drawdown was 4.3% of equity."
    )
    assert performance(
        symbol="EURUSD", trades=1, win_rate=1.0, mean_r=2.0, total_r=2.0, max_drawdown=0.0
    ) == (
        "Results for EURUSD (2017-01 to 2017-06): 1 trade was closed, at a profit. The result was +2 R. "
        "The average size was 0.85x, and there was no drawdown."
    )
    assert performance(trades=0) == "Results for all symbols (2017-01 to 2017-06): no trades were closed."
    assert "1 trade was closed, without a profit." in performance(trades=1, win_rate=0.0)
    assert "2 trades were closed, all of them at a profit." in performance(trades=2, win_rate=1.0)
    assert "2 trades were closed, none of them at a profit." in performance(trades=2, win_rate=0.0)


@pytest.mark.parametrize(
    "module", [template, rationale_wordings, risk_wordings, market_wordings, performance_wordings]
)
def test_no_digit_is_written_in_the_wordings(module):
    tree = ast.parse(inspect.getsource(module))
    strings = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    names = {"mom_20", "mom_5", "vol_ratio_5_20", "1 times"}
    written = [re.sub(r"\$\w+", "", string) for string in strings if string not in names]
    assert [string for string in written if re.search(r"\d", string)] == []
