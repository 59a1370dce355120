import math

import pytest
from pydantic import ValidationError

from envs.observation import OBSERVATION_FIELDS
from market.errors import InputError
from narratives.contexts import MarketFeatures
from narratives.facts import Fact, Facts, compute, listed, number, ungrounded_numbers

OBSERVATION = {
    "trend_strength": 0.58,
    "volatility_regime": 0.93,
    "momentum_score": 0.62,
    "signal_confidence": 0.47,
    "entry_quality": 0.4,
    "risk_reward_ratio": 0.5,
    "current_exposure_pct": 0.35,
    "win_rate_recent": 0.5,
    "drawdown_pct": 0.2,
    "max_position_pct": 0.8,
    "remaining_daily_risk": 0.62,
    "session_left": 0.5,
}
DECISION = {
    "symbol": "EURUSD",
    "side": "long",
    "action": "STANDARD",
    "multiplier": 1.0,
    "proposed_multiplier": 1.5,
    "rule_cap": 1.2,
    "binding_rule": "max_daily_risk",
    "source": "model",
    "model_status": "STAGING",
    "base_risk": 0.01,
    "risk_fraction": 0.01,
    "observation": OBSERVATION,
    "ladder": [
        {"action": "SKIP", "size": 0.0, "value": 0.0, "legal": True, "blocked_by": None},
        {"action": "SMALL", "size": 0.5, "value": 0.03, "legal": True, "blocked_by": None},
        {"action": "STANDARD", "size": 1.0, "value": 0.05, "legal": True, "blocked_by": None},
        {"action": "MODERATE", "size": 1.25, "value": 0.06, "legal": False, "blocked_by": "max_daily_risk"},
        {"action": "AGGRESSIVE", "size": 1.5, "value": 0.07, "legal": False, "blocked_by": "max_daily_risk"},
    ],
}
FEATURES = dict.fromkeys(MarketFeatures.model_fields, 0.25)
PERFORMANCE = {
    "symbol": None,
    "trades": 1234,
    "win_rate": 0.415,
    "mean_r": -0.113,
    "total_r": -139.72,
    "max_drawdown": 0.043,
    "average_multiplier": 0.85,
    "period": "2017-01 to 2017-06",
}


def decision_facts(**changes):
    return compute("trade_rationale", DECISION | changes)


def displays(facts, *names):
    return [facts.text(name) for name in names]


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (1.25, {}, "1.25"),
        (1.0, {}, "1"),
        (0.5, {}, "0.5"),
        (0.125, {"places": 3}, "0.125"),
        (1234.5, {}, "1,234.5"),
        (100.0, {"places": 0}, "100"),
        (0.0042, {}, "0.0042"),
        (0.00001, {}, "about 0"),
        (-0.00001, {"signed": True}, "about 0"),
        (0.0, {"signed": True}, "0"),
        (-0.0, {}, "0"),
        (0.12, {"signed": True}, "+0.12"),
        (-3.1, {"signed": True}, "-3.1"),
        (0.3, {"places": 0}, "0.3"),
    ],
)
def test_numbers_are_shown_like_this(value, options, text):
    assert number(value, **options) == text


def test_lists_are_told_like_this():
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b, and c"]


def test_the_facts_of_a_decision_carry_value_unit_and_display():
    facts = decision_facts()
    assert facts.by_name["risk_fraction"] == Fact(
        name="risk_fraction", value=0.01, unit="fraction of equity", display="1%"
    )
    assert displays(facts, "multiplier", "proposed_multiplier", "rule_cap") == ["1x", "1.5x", "1.2x"]
    assert displays(facts, "signal_confidence", "break_even", "reward_to_risk") == [
        "47%",
        "28.6%",
        "2.5 times",
    ]
    assert displays(facts, "entry_quality", "momentum_score", "trend_strength") == [
        "0.4 ATR",
        "+0.62",
        "0.58",
    ]
    assert displays(facts, "runner_up", "runner_up_margin") == ["SMALL (0.5x)", "0.02"]
    assert facts.text("blocked_by_max_daily_risk") == "MODERATE (1.25x) and AGGRESSIVE (1.5x)"


def test_clipped_readings_are_shown_as_bounds():
    far = decision_facts(observation={"entry_quality": -1.0, "risk_reward_ratio": 1.0})
    assert displays(far, "entry_quality", "reward_to_risk", "break_even") == [
        "1 ATR or more",
        "at least 3 times",
        "25% or less",
    ]
    near = decision_facts(observation={"risk_reward_ratio": -1.0})
    assert displays(near, "reward_to_risk", "break_even") == ["at most 1 times", "50% or more"]


def test_a_size_is_never_shown_above_its_cap_nor_a_cap_like_a_size_it_blocks():
    facts = decision_facts(multiplier=0.4756, rule_cap=0.4756, risk_fraction=0.004756)
    assert displays(facts, "multiplier", "rule_cap", "risk_fraction") == ["0.475x", "0.475x", "0.475%"]
    assert decision_facts(rule_cap=1.2499999).text("rule_cap") == "1.249x"
    assert decision_facts(rule_cap=0.1 + 0.2).text("rule_cap") == "0.3x"
    assert decision_facts(multiplier=0.0004).text("multiplier") == "0.0004x"


def test_there_is_no_runner_up_where_the_chosen_size_was_not_the_best_valued():
    ladder = [
        dict(rung, value=rung["value"] if rung["action"] != "SMALL" else 0.9) for rung in DECISION["ladder"]
    ]
    assert "runner_up" not in decision_facts(ladder=ladder)
    assert "runner_up" not in decision_facts(ladder=[dict(rung, value=None) for rung in DECISION["ladder"]])
    assert "runner_up" not in decision_facts(ladder=[])


def test_an_unknown_reading_is_no_fact_and_no_reason():
    facts = decision_facts(observation=dict.fromkeys(OBSERVATION_FIELDS))
    assert not set(OBSERVATION_FIELDS) & set(facts.by_name)
    assert facts.reasons == ()


def test_the_facts_of_a_market_are_in_units_a_reader_knows():
    facts = compute(
        "market_narrative", {"symbol": "EURUSD", "features": FEATURES | {"mom_20": 1.0, "mom_5": -1.31}}
    )
    assert displays(facts, "mom_20", "mom_5") == ["+1 standard deviation", "-1.31 standard deviations"]
    assert displays(facts, "rsi", "adx", "atr_ratio") == ["62.5", "25", "25%"]


def test_the_facts_of_a_performance_count_in_the_right_number():
    facts = compute("performance_summary", PERFORMANCE)
    assert displays(facts, "subject", "trades", "win_rate", "mean_r", "total_r") == [
        "all symbols",
        "1,234 trades",
        "41.5%",
        "-0.11 R",
        "-139.72 R",
    ]
    assert compute("performance_summary", PERFORMANCE | {"trades": 1}).text("trades") == "1 trade"
    nothing = compute("performance_summary", {"trades": 0, "period": "2017"})
    assert (nothing.text("trades"), "win_rate" in nothing) == ("0 trades", False)


def test_the_names_used_are_those_of_the_observation_and_of_the_features():
    spec = pytest.importorskip("features.spec", exc_type=ModuleNotFoundError)
    assert set(MarketFeatures.model_fields) <= set(spec.FEATURE_NAMES)
    renamed = {"risk_reward_ratio": "reward_to_risk"}
    shown = set(decision_facts().by_name)
    assert {renamed.get(name, name) for name in OBSERVATION_FIELDS} <= shown


@pytest.mark.parametrize(
    ("kind", "context", "message"),
    [
        (
            "trade_rationale",
            {k: v for k, v in DECISION.items() if k != "side"},
            "side: got None; field required",
        ),
        (
            "trade_rationale",
            DECISION | {"multiplier": math.nan},
            "multiplier: got nan; input should be a finite",
        ),
        ("trade_rationale", DECISION | {"multiplier": -1}, "multiplier: got -1; input should be greater"),
        ("risk_assessment", DECISION | {"side": "buy"}, "side: got 'buy'; input should be 'long' or 'short'"),
        (
            "risk_assessment",
            DECISION | {"observation": {"drawdown_pct": math.inf}},
            r"observation\.drawdown_pct: got inf",
        ),
        (
            "risk_assessment",
            DECISION | {"ladder": [{"action": "SKIP"}]},
            r"ladder\.0\.size: got None; field required",
        ),
        ("trade_rationale", DECISION | {"symbol": "EUR USD. Buy now"}, "symbol: got"),
        ("trade_rationale", DECISION | {"model_status": "live\nSell"}, "model_status: got"),
        (
            "market_narrative",
            {"symbol": "X", "features": FEATURES | {"mom_20": math.nan}},
            r"features\.mom_20: got nan",
        ),
        ("market_narrative", {"symbol": "X"}, "features: got None; field required"),
        ("performance_summary", PERFORMANCE | {"trades": -1}, "trades: got -1"),
        ("performance_summary", PERFORMANCE | {"trades": 1.5}, "trades: got 1.5"),
        ("performance_summary", PERFORMANCE | {"win_rate": 41.5}, "win_rate: got 41.5"),
        (
            "performance_summary",
            PERFORMANCE | {"mean_r": None},
            "mean_r: got None; give the figure: there were trades",
        ),
        ("performance_summary", [], "context: got .*; give a mapping"),
        (
            "poem",
            {},
            "kind: got 'poem'; give one of market_narrative, trade_rationale, risk_assessment, perf",
        ),
    ],
)
def test_a_context_that_cannot_be_told_is_refused_by_field(kind, context, message):
    with pytest.raises(InputError, match=message):
        compute(kind, context)


def test_a_fact_holds_no_number_that_is_none():
    for value in (math.nan, math.inf):
        with pytest.raises(ValidationError):
            Fact(name="a", value=value, unit="R", display="nan")


FACTS = Facts(
    kind="trade_rationale",
    facts=tuple(
        Fact(name=f"fact_{chr(97 + place)}", value=display, unit="text", display=display)
        for place, display in enumerate(
            [
                "1.25x",
                "1%",
                "0.3",
                "+0.62",
                "2.5 times",
                "US500",
                "2017-01 to 2017-06",
                "1,234 trades",
                "-0.11 R",
                "20 bars",
            ]
        )
    ),
)


@pytest.mark.parametrize(
    "text",
    [
        "Size 1.25x, risk 1% (of equity).",
        "The score is 0.3; US500 moved +0.62, or 2.5 times as far.",
        "In 2017-01 to 2017-06, 1,234 trades made -0.11 R over 20 bars.",
        "1.25x.",
        "No digits, no one, no number: someone often wrote the first tense weight.",
        "",
    ],
)
def test_numbers_that_are_facts_are_grounded(text):
    assert ungrounded_numbers(text, FACTS) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Size 1.5x.", ["1.5x"]),
        ("Size 1.25.", ["1.25"]),
        ("Size 11.25x.", ["11.25x"]),
        ("Size 1.25x5.", ["1.25x5"]),
        ("Risk 1.25%.", ["1.25%"]),
        ("Risk 1 percent.", ["1"]),
        ("Risk 1%1.", ["1%1"]),
        ("Score -0.3.", ["-0.3"]),
        ("Score −0.3.", ["−0.3"]),
        ("Score 0.62.", ["0.62"]),
        ("Score 0.31.", ["0.31"]),
        ("Score 10.3.", ["10.3"]),
        ("Score 0.3%.", ["0.3%"]),
        ("Score 0.3 percent.", ["0.3"]),
        ("Score 0.3 R.", ["0.3"]),
        ("Won 0.3 million.", ["0.3", "million"]),
        ("Won $0.3.", ["$0.3"]),
        ("From 0.3-0.5.", ["0.3", "-0.5"]),
        ("Made 0.11 R.", ["0.11"]),
        ("In 2017, 1,235 trades, 234 trades.", ["2017", "1,235", "234"]),
        ("US5000 and AUS500.", ["5000", "500"]),
        ("Two of twenty, then half of a dozen; twice.", ["Two", "twenty", "half", "dozen", "twice"]),
        ("Forty-two thousands.", ["Forty", "two", "thousands"]),
        ("x², ½ and Ⅳ and ③.", ["²", "½", "Ⅳ", "③"]),
        ("１.25x and ٣.", ["１.25x", "٣"]),
        ("1e3 and .5", ["1e3", ".5"]),
    ],
)
def test_numbers_that_are_no_facts_are_found(text, found):
    assert ungrounded_numbers(text, FACTS) == found


def test_without_numeric_facts_every_number_is_found():
    facts = Facts(kind="market_narrative", facts=(Fact(name="a", value="b", unit="text", display="b"),))
    assert ungrounded_numbers("7 of b", facts) == ["7"]
