"""The sizer: equal to training, never above the rules, and the rule where the model has no valid say."""

import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.guardrails import LARGEST_SIZE, RULES, SIZES, TIERS, Account, Limits, TighterLimits, cap
from envs.observation import MARKET_COLUMNS, OBSERVATION_FIELDS, Situation
from envs.signal_table import SignalTable, signal_table
from evaluation.backtest import run
from features.spec import FEATURE_NAMES
from market.bars import Bars
from market.errors import DataError
from narratives.narrator import Narrator
from serving.answers import SizingAnswer
from serving.limits_file import OperatorLimits
from serving.position_sizer import NO_MODEL, PositionSizer, feature_row
from serving.schemas import Signal, SizingRequest, bars_of
from signals.outcomes import Costs, label
from signals.rules import rule
from signals.signal_frame import checked
from signals.trades import Trades, trade_fields
from tests.serving_bundles import COSTS, bar_rows, bundle, fine_tuned_bundle, request

ASKED = SizingRequest.model_validate(request())
SIGNAL, FRESH = ASKED.signal, Account(1.0, 1.0, 0.0, 0.0, 0)
ROW = feature_row(ASKED.market.feature_row())
LEARNED, BOLD, TUNED = bundle(0), bundle(0, favourite=5), fine_tuned_bundle(0)
DAY = 86_400_000_000_000


class Advises:
    """A policy that says what it is told to."""

    name, snaps = "told", True

    def __init__(self, size: float = 1.0, value: float = 0.0, error: Exception | None = None) -> None:
        self.told, self.value, self.error = size, value, error

    def values(self, situation: Situation) -> np.ndarray:
        return np.full((1, 6), self.value)

    def pick(self, values: np.ndarray, situation: Situation) -> tuple[np.ndarray, np.ndarray]:
        return self.size(situation), self.size(situation)

    def size(self, situation: Situation) -> np.ndarray:
        if self.error:
            raise self.error
        return np.array([self.told])


def told(policy: Advises) -> PositionSizer:
    sizer = PositionSizer(LEARNED, "STAGING", "d" * 64)
    sizer._policy = policy
    return sizer


@cache
def trained_on() -> tuple[Trades, SignalTable]:
    """Trades on random bars, and the table that training would make of them."""
    rows = bar_rows(1500)
    # Every bar opens at the close before it, so that costs at the entry equal costs at the signal.
    bars = bars_of(
        "EURUSD",
        SizingRequest.model_validate(request(market={"features": None, "bars": rows})).market.bars or [],
    )
    assert np.array_equal(bars.open[1:], bars.close[:-1])
    trades = label(bars, checked(rule("donchian").generate(bars), bars), Costs(**COSTS))
    assert len(trades) > 30
    fields = trade_fields(trades, LEARNED.ranks)
    return trades, signal_table(
        time=trades.signal_time,
        exit_time=trades.exit_time,
        symbol=trades.symbol,
        signal_fields=fields,
        gross_r=trades.gross_r,
        cost_r=trades.cost_r,
        impact_r=trades.impact_r,
        probability=LEARNED.outcome_model.probability(fields),
        outcome_r=LEARNED.outcome_model.outcome_r,
        volatility_ratio=np.ones(len(trades)),
        out_of_distribution=LEARNED.support.outside(trades.features),
        k=LEARNED.meta.k,
        base_risk=LEARNED.meta.base_risk,
        prior_win_rate=LEARNED.meta.prior_win_rate,
    )


def signal_of(trades: Trades, i: int) -> Signal:
    return Signal(
        symbol="EURUSD",
        side="long" if trades.side[i] > 0 else "short",
        timestamp=f"{np.datetime64(int(trades.signal_time[i]), 'ns').astype('datetime64[s]')}Z",
        price=float(trades.close[i]),
        stop=float(trades.stop[i]),
        take_profit=float(trades.take_profit[i]),
        entry=float(trades.level[i]),
        confidence=float(trades.confidence[i]),
    )


def test_observation_is_that_of_training_bit_for_bit() -> None:
    trades, table = trained_on()
    sizer = PositionSizer(LEARNED, "STAGING")
    for i in range(len(trades)):
        rate = float(table.market[i, 7])
        details = sizer.get_sizing_recommendation(
            signal_of(trades, i), trades.features[i], FRESH, Limits(), win_rate_recent=rate
        ).details
        seen = np.array(list(details["observation"].values()), dtype=np.float32)
        columns = list(MARKET_COLUMNS)
        assert np.array_equal(seen[columns], table.market[i, columns])
        assert details["out_of_distribution"] == table.out_of_distribution[i]


@pytest.mark.parametrize("limits", [Limits(), Limits(max_position=0.0104)])
def test_served_size_is_that_of_the_evaluation_to_the_last_bit(limits: Limits) -> None:
    trades, table = trained_on()
    sizes = set()
    for learned in (fine_tuned_bundle(0, favourite=3), LEARNED):
        sizer = PositionSizer(learned, "STAGING")
        for i in range(len(trades)):
            alone = run(learned.policy(), table.take(np.array([i])), limits, learned.meta.session_days)
            served = sizer.get_sizing_recommendation(
                signal_of(trades, i),
                trades.features[i],
                FRESH,
                limits,
                win_rate_recent=float(table.market[i, 7]),
            )
            assert served.multiplier == alone.multiplier[0]
            sizes.add(served.multiplier)
    assert len(sizes - set(SIZES.tolist())) > (5 if limits == Limits() else 1)


def test_costs_are_those_that_training_charges() -> None:
    costs = Costs(fee_bps=1.0, spread_bps=2.0, slippage_bps=3.0, impact_bps=4.0)
    bars = bars_of(
        "X",
        SizingRequest.model_validate(request(market={"features": None, "bars": bar_rows(600)})).market.bars
        or [],
    )
    trades = label(bars, checked(rule("donchian").generate(bars), bars), costs)
    fixed, impact = costs.in_r(trades.close, trades.stop_distance)
    assert np.array_equal(fixed, trades.cost_r)
    assert np.array_equal(impact, trades.impact_r)
    assert len(trades) > 5


def test_size_is_the_bundles_own_policy_through_the_guardrail() -> None:
    sizer = PositionSizer(bundle(0, favourite=5), "PRODUCTION", "d" * 64)
    action, multiplier, details = sizer.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits())
    assert (action, multiplier, details["binding_rule"]) == ("AGGRESSIVE", 1.5, "none")
    assert (details["source"], details["model_status"], details["model_fault"]) == (
        "model",
        "PRODUCTION",
        None,
    )
    tight = sizer.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits(), tighter=TighterLimits(rule_cap=0.6))
    assert (tight.action, tight.multiplier, tight.details["rule_cap"]) == ("SMALL", 0.5, 0.6)
    assert tight.details["risk_fraction"] == 0.005
    assert (tight.details["proposed_multiplier"], tight.details["binding_rule"]) == (1.5, "rule_cap")
    assert [rung["legal"] for rung in tight.details["ladder"]] == [True, True, True, False, False, False]
    assert {rung["blocked_by"] for rung in tight.details["ladder"][3:]} == {"rule_cap"}


def test_veto_that_the_operator_does_not_allow_is_named() -> None:
    sizer = PositionSizer(bundle(0, favourite=0), "STAGING")
    details = sizer.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits(allow_skip=False)).details
    assert (details["proposed_multiplier"], details["multiplier"]) == (0.0, 0.25)
    assert details["binding_rule"] == "skip_not_allowed"


def test_looser_limits_in_a_request_change_nothing() -> None:
    sizer = PositionSizer(bundle(0, favourite=5), "PRODUCTION")
    limits = Limits(max_position=0.005, rule_cap=1.0)
    loose = TighterLimits(max_position=1.0, max_exposure=1.0, max_daily_risk=1.0, rule_cap=1.5)
    wide = sizer.get_sizing_recommendation(SIGNAL, ROW, FRESH, limits, tighter=loose)
    assert wide == sizer.get_sizing_recommendation(SIGNAL, ROW, FRESH, limits)
    assert wide.multiplier == 0.5


def test_without_a_model_the_rules_tier_is_answered_and_said_so() -> None:
    action, multiplier, details = PositionSizer(None).get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits())
    assert (action, multiplier) == ("STANDARD", 1.0)
    assert (details["source"], details["model_status"], details["proposed_multiplier"]) == (
        "rule",
        NO_MODEL,
        None,
    )
    assert {rung["value"] for rung in details["ladder"]} == {None}
    unknown = {name for name, value in details["observation"].items() if value is None}
    assert unknown == {"volatility_regime", "signal_confidence", "win_rate_recent", "session_left"}


def test_without_a_model_the_limits_still_bind() -> None:
    details = (
        PositionSizer(None).get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits(max_position=0.004)).details
    )
    assert (details["action"], details["multiplier"], details["binding_rule"]) == (
        "MICRO",
        0.25,
        "max_position",
    )


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (Advises(size=math.nan), "the size is not finite"),
        (Advises(size=math.inf), "the size is not finite"),
        (Advises(size=-0.5), "the size is negative"),
        (Advises(value=math.nan), "a value is not finite"),
        (Advises(error=ZeroDivisionError("by zero")), "ZeroDivisionError"),
        (Advises(error=MemoryError()), "MemoryError"),
    ],
)
def test_model_without_a_valid_say_leaves_the_rule(policy: Advises, why: str) -> None:
    action, multiplier, details = told(policy).get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits())
    assert (action, multiplier, details["source"]) == ("STANDARD", 1.0, "rule")
    assert details["model_status"].startswith("STAGING, not used: ")
    assert why in details["model_status"]
    assert len(details["model_status"]) <= 60
    assert details["model_fault"]
    assert details["bundle"] == "d" * 64


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf, 1e308])
def test_strange_feature_leaves_the_rule_or_lowers_it(strange: float) -> None:
    sizer = PositionSizer(bundle(0, favourite=5), "STAGING")
    for column in range(len(FEATURE_NAMES)):
        row = ROW.copy()
        row[column] = strange
        _, multiplier, details = sizer.get_sizing_recommendation(SIGNAL, row, FRESH, Limits())
        assert multiplier <= 1.0, FEATURE_NAMES[column]
        assert details["source"] == "rule" or details["binding_rule"] == "out_of_distribution"
        json.dumps(details, allow_nan=False)


def test_features_outside_the_training_data_only_lower() -> None:
    far = np.full(len(FEATURE_NAMES), 50.0)
    bold = PositionSizer(bundle(0, favourite=5), "STAGING").get_sizing_recommendation(
        SIGNAL, far, FRESH, Limits()
    )
    assert (bold.multiplier, bold.details["binding_rule"]) == (1.0, "out_of_distribution")
    shy = PositionSizer(bundle(0, favourite=1), "STAGING").get_sizing_recommendation(
        SIGNAL, far, FRESH, Limits()
    )
    assert (shy.multiplier, shy.details["binding_rule"]) == (0.25, "none")
    assert shy.details["out_of_distribution"] is True


def test_unusable_limits_give_nothing_whatever_the_model_says() -> None:
    broken = OperatorLimits(None, "limits/desk.json cannot be used (x)", None)
    for sizer in (PositionSizer(None), PositionSizer(bundle(0, favourite=5), "STAGING")):
        action, multiplier, details = sizer.get_sizing_recommendation(
            SIGNAL, ROW, FRESH, broken, tighter=TighterLimits(rule_cap=1.0)
        )
        assert (action, multiplier, details["rule_cap"]) == ("SKIP", 0.0, 0.0)
        assert (details["binding_rule"], details["risk_fraction"]) == ("invalid_limits", 0.0)
        assert details["limits_source"] == broken.source
        json.dumps(details, allow_nan=False)


@pytest.mark.parametrize("equity", [math.nan, math.inf, 0.0, -5.0])
def test_impossible_account_gives_nothing(equity: float) -> None:
    account = Account(equity, 1.0, 0.0, 0.0, 0)
    details = (
        PositionSizer(LEARNED, "STAGING").get_sizing_recommendation(SIGNAL, ROW, account, Limits()).details
    )
    assert (details["multiplier"], details["binding_rule"]) == (0.0, "invalid_account")
    json.dumps(details, allow_nan=False)


def test_a_thousand_identical_requests_give_one_answer() -> None:
    sizer = PositionSizer(LEARNED, "STAGING")
    account = ASKED.account.account()
    answers = {
        json.dumps(sizer.get_sizing_recommendation(SIGNAL, ROW, account, Limits()).details)
        for _ in range(1000)
    }
    assert len(answers) == 1


def test_fine_tuned_size_is_clamped_to_the_cap_and_named_by_the_tier_below() -> None:
    sizer = PositionSizer(fine_tuned_bundle(0, favourite=3, always=0.6), "STAGING")
    action, multiplier, details = sizer.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits())
    assert (action, details["binding_rule"]) == ("STANDARD", "none")
    assert multiplier == details["proposed_multiplier"] == pytest.approx(1.09)
    tight = sizer.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits(max_position=0.0104))
    assert (tight.action, tight.details["binding_rule"]) == ("STANDARD", "max_position")
    assert tight.multiplier == tight.details["rule_cap"] == pytest.approx(1.04)
    tiers = PositionSizer(bundle(0, favourite=3), "STAGING")
    ladder = tiers.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits()).details["ladder"]
    assert details["ladder"] == ladder
    lower = PositionSizer(fine_tuned_bundle(0, favourite=3, always=-1.0), "STAGING")
    assert lower.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits())[:2] == (
        "SMALL",
        pytest.approx(0.85),
    )


def test_fine_tune_neither_passes_the_largest_size_nor_turns_skip_into_a_trade() -> None:
    bold = PositionSizer(fine_tuned_bundle(0, favourite=5, always=1.0), "STAGING")
    assert bold.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits())[:2] == ("AGGRESSIVE", 1.5)
    shy = PositionSizer(fine_tuned_bundle(0, favourite=0, always=1.0), "STAGING")
    assert shy.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits())[:2] == ("SKIP", 0.0)
    least = PositionSizer(fine_tuned_bundle(0, favourite=1, always=-1.0), "STAGING")
    assert least.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits())[:2] == ("MICRO", 0.25)


def test_fine_tune_outside_the_training_data_only_lowers() -> None:
    far = np.full(len(FEATURE_NAMES), 50.0)
    for always, size, binding in ((1.0, 1.0, "out_of_distribution"), (-1.0, 0.85, "none")):
        sizer = PositionSizer(fine_tuned_bundle(0, favourite=3, always=always), "STAGING")
        answer = sizer.get_sizing_recommendation(SIGNAL, far, FRESH, Limits())
        assert answer.multiplier == pytest.approx(size)
        assert answer.details["binding_rule"] == binding


def test_fine_tuned_answer_is_the_same_a_thousand_times() -> None:
    sizer = PositionSizer(fine_tuned_bundle(0, favourite=3), "STAGING")
    answers = {
        json.dumps(sizer.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits()).details) for _ in range(1000)
    }
    (answer,) = answers
    assert json.loads(answer)["multiplier"] not in SIZES


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(
    features=st.lists(numbers, min_size=31, max_size=31),
    size=numbers,
    value=numbers,
    fails=st.booleans(),
    account=st.tuples(numbers, numbers, numbers, numbers, st.integers(-5, 5000)),
    win_rate=st.none() | numbers,
    rule_cap=st.none() | st.floats(0, 1.5),
    allow_skip=st.booleans(),
    snaps=st.booleans(),
)
def test_size_never_passes_the_cap_whatever_comes_in(
    features: list[float],
    size: float,
    value: float,
    fails: bool,
    account: tuple[float, float, float, float, int],
    win_rate: float | None,
    rule_cap: float | None,
    allow_skip: bool,
    snaps: bool,
) -> None:
    limits = Limits(allow_skip=allow_skip)
    tighter = TighterLimits(rule_cap=rule_cap)
    policy = Advises(size, value, ValueError("no") if fails else None)
    policy.snaps = snaps  # type: ignore[misc]
    tuned = PositionSizer(TUNED, "STAGING")
    for sizer in (told(policy), PositionSizer(LEARNED, "STAGING"), tuned, PositionSizer(None)):
        action, multiplier, details = sizer.get_sizing_recommendation(
            SIGNAL, np.array(features), Account(*account), limits, tighter=tighter, win_rate_recent=win_rate
        )
        largest, _ = cap(Account(*account), limits.tightened(tighter))
        assert 0.0 <= multiplier <= largest[0] == details["rule_cap"] <= LARGEST_SIZE
        assert action == TIERS[int(np.searchsorted(SIZES, multiplier, side="right")) - 1]
        assert details["binding_rule"] in RULES
        assert snaps is False or sizer is tuned or multiplier in SIZES
        json.dumps(details, allow_nan=False)


def test_details_are_the_answer_and_a_narrators_context() -> None:
    narrator = Narrator()
    for sizer in (
        PositionSizer(LEARNED, "STAGING"),
        PositionSizer(None),
        told(Advises(size=math.nan)),
    ):
        details = sizer.get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits()).details
        answer = SizingAnswer.model_validate({"decision_id": "x", **details})
        assert answer.model_dump(exclude={"decision_id", "reservation"}) == details
        assert list(details["observation"]) == list(OBSERVATION_FIELDS)
        assert narrator.generate_trade_rationale(details).text
        assert narrator.generate_risk_assessment(details).text


def test_bars_give_what_their_features_give() -> None:
    rows = (
        SizingRequest.model_validate(request(market={"features": None, "bars": bar_rows(150)})).market.bars
        or []
    )
    bars: Bars = bars_of("EURUSD", rows)
    sizer = PositionSizer(LEARNED, "STAGING")
    by_bars = sizer.get_sizing_recommendation(SIGNAL, bars, FRESH, Limits())
    row = feature_row(bars)
    assert by_bars == sizer.get_sizing_recommendation(SIGNAL, row, FRESH, Limits())
    named = dict(zip(FEATURE_NAMES, row.tolist(), strict=True))
    assert by_bars == sizer.get_sizing_recommendation(SIGNAL, named, FRESH, Limits())
    with pytest.raises(DataError, match="bars: got 100; give at least 101"):
        feature_row(bars.window(0, 100))


def test_a_policy_that_answers_in_another_shape_has_no_say() -> None:
    class Mute(Advises):
        def values(self, situation: Situation) -> np.ndarray:
            return np.zeros((1, 5))

    details = told(Mute()).get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits()).details
    assert (details["source"], details["multiplier"]) == ("rule", 1.0)
    assert details["model_fault"].startswith("ValueError: the policy gives values and sizes of the shapes")


@pytest.mark.parametrize("market", [np.zeros(30), np.zeros((1, 31)), {"mom_5": 1.0}, {}])
def test_features_of_another_shape_are_refused(market: Any) -> None:
    with pytest.raises(DataError, match="features: got"):
        feature_row(market)


def test_preferences_of_a_policy_gradient_are_not_shown_as_utilities() -> None:
    valued, preferred = (
        PositionSizer(bundle(0, algo=algo), "STAGING").get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits())
        for algo in ("dqn", "ppo")
    )
    assert valued.multiplier == preferred.multiplier
    assert all(rung["value"] is not None for rung in valued.details["ladder"])
    assert all(rung["value"] is None for rung in preferred.details["ladder"])


def test_expected_utility_is_the_plug_ins_own_value() -> None:
    plug_in = bundle(0, algo="plugin")
    details = (
        PositionSizer(plug_in, "STAGING").get_sizing_recommendation(SIGNAL, ROW, FRESH, Limits()).details
    )
    chosen = next(rung for rung in details["ladder"] if rung["action"] == details["action"])
    assert details["expected_utility"] == pytest.approx(chosen["value"], abs=1e-12)


def test_unseen_symbol_is_ranked_among_the_pooled_quantiles() -> None:
    other = SIGNAL.model_copy(update={"symbol": "GOOGL"})
    sizer = PositionSizer(LEARNED, "STAGING")
    known, pooled = (
        sizer.get_sizing_recommendation(signal, ROW, FRESH, Limits()).details["observation"][
            "volatility_regime"
        ]
        for signal in (SIGNAL, other)
    )
    assert known != pooled
    assert pooled == pytest.approx(float(LEARNED.ranks.rank("*", ROW[[9]])[0]), abs=1e-6)


@given(
    features=st.lists(st.floats(-1e6, 1e6), min_size=31, max_size=31),
    size=st.floats(0.0, 10.0),
    used=st.floats(0.0, 0.06),
    snaps=st.booleans(),
)
def test_outside_the_training_data_a_model_only_ever_lowers_the_rules_size(
    features: list[float], size: float, used: float, snaps: bool
) -> None:
    account = Account(1.0, 1.0, used, 0.0, 0)
    row = np.array(features)
    policy = Advises(size)
    policy.snaps = snaps  # type: ignore[misc]
    by_rule = PositionSizer(None).get_sizing_recommendation(SIGNAL, row, account, Limits()).multiplier
    outside = bool(LEARNED.support.outside(row[None])[0])  # all these bundles have the same support
    for sizer in (told(policy), PositionSizer(BOLD, "STAGING"), PositionSizer(TUNED, "STAGING")):
        _, multiplier, details = sizer.get_sizing_recommendation(SIGNAL, row, account, Limits())
        assert details["out_of_distribution"] in (outside, None)
        if outside or details["source"] == "rule":
            assert multiplier <= by_rule
        if details["source"] == "model":
            assert multiplier <= details["proposed_multiplier"]
