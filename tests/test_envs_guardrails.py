"""The guardrail holds for every input whatsoever, and names the rule that bound."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from envs.guardrails import (
    INVALID_ACCOUNT,
    INVALID_LIMITS,
    INVALID_PROPOSAL,
    MAX_DRAWDOWN,
    MAX_EXPOSURE,
    MAX_OPEN_TRADES,
    NONE,
    OUT_OF_DISTRIBUTION,
    RULE_CAP,
    RULES,
    SIZES,
    SKIP_NOT_ALLOWED,
    Account,
    Limits,
    TighterLimits,
    allowed,
    cap,
    floor_to_tier,
    guard,
)

anything = st.floats(allow_nan=True, allow_infinity=True)
money = st.floats(1e-6, 1e12)
fraction = st.floats(0.0, 1.0)
some_limits = st.builds(
    Limits,
    base_risk=st.floats(1e-4, 0.1),
    max_position=fraction,
    max_exposure=fraction,
    max_daily_risk=fraction,
    max_drawdown=st.floats(0.01, 0.99),
    gap_factor=st.floats(1.0, 5.0),
    max_open_trades=st.integers(1, 64),
    rule_cap=st.floats(0.0, 1.5),
    allow_skip=st.booleans(),
)
any_limits = st.one_of(
    some_limits,
    st.builds(
        lambda values: Limits.model_construct(**dict(zip(Limits.model_fields, values, strict=True))),
        st.tuples(*[anything] * 8, st.booleans()),
    ),
)
SOUND = Account(equity=100_000.0, peak_equity=100_000.0, open_risk=0.0, daily_risk_used=0.0)


@given(anything, anything, anything, anything, anything, anything, any_limits, st.booleans(), st.booleans())
@example(math.nan, 1.0, 1.0, 0.0, 0.0, 0.0, Limits(), True, False)
@example(1.5, math.inf, 1.0, 0.0, 0.0, 0.0, Limits(), True, False)
@example(1.5, 1.0, 1.0, 0.0, math.nan, 0.0, Limits(), True, False)
@example(9.0, 1.0, 1.0, 0.0, 0.0, 0.0, Limits(rule_cap=0.3), False, True)
def test_no_input_whatsoever_passes_the_cap(
    proposed: float,
    equity: float,
    peak: float,
    open_risk: float,
    used: float,
    trades: float,
    limits: Limits,
    snap: bool,
    strange: bool,
) -> None:
    account = Account(equity, peak, open_risk, used, trades)
    guarded = guard(proposed, account, limits, snap=snap, out_of_distribution=strange)
    size, largest = guarded.multiplier[0], guarded.cap[0]
    assert 0.0 <= size <= largest <= 1.5
    if math.isfinite(limits.rule_cap):
        assert size <= max(limits.rule_cap, 0.0)
    assert 0 <= guarded.binding[0] < len(RULES)
    if math.isfinite(proposed) and proposed >= 0 and size < proposed and not snap:
        assert guarded.binding[0] != NONE
    if snap:
        assert size in SIZES


@given(st.floats(0.0, 10.0), money, money, fraction, fraction, st.integers(0, 40), some_limits, st.booleans())
def test_the_new_trade_keeps_every_limit(
    proposed: float,
    equity: float,
    peak: float,
    open_risk: float,
    used: float,
    trades: int,
    limits: Limits,
    snap: bool,
) -> None:
    account = Account(equity, peak, open_risk, used, trades)
    size = guard(proposed, account, limits, snap=snap).multiplier[0]
    risk = size * limits.base_risk
    slack = 1e-11  # risk is counted to 1e-12 of equity
    if size > 0:
        assert risk <= limits.max_position + slack
        assert open_risk + risk <= limits.max_exposure + slack
        assert used + risk <= limits.max_daily_risk + slack
        assert trades < limits.max_open_trades
        worst = 1.0 - (open_risk + risk) * limits.gap_factor
        assert worst >= max(peak, equity) / equity * (1.0 - limits.max_drawdown) - 1e-9


@given(st.floats(0.0, 2.0), money, money, fraction, fraction, some_limits, st.floats(0, 1), st.floats(0, 1.5))
def test_a_request_can_only_tighten(
    proposed: float,
    equity: float,
    peak: float,
    open_risk: float,
    used: float,
    limits: Limits,
    position: float,
    rule_cap: float,
) -> None:
    account = Account(equity, peak, open_risk, used)
    asked = TighterLimits(max_position=position, rule_cap=rule_cap, max_exposure=1.0)
    assert guard(proposed, account, limits.tightened(asked)).cap <= guard(proposed, account, limits).cap


def test_tightening_by_nothing_changes_nothing() -> None:
    assert Limits().tightened(None) == Limits()
    assert Limits().tightened(TighterLimits(max_position=0.5)) == Limits()
    assert Limits().tightened(TighterLimits(max_position=0.005)).max_position == 0.005


@pytest.mark.parametrize(
    ("account", "limits", "proposed", "size", "rule"),
    [
        (SOUND, Limits(), 1.5, 1.5, NONE),
        (SOUND, Limits(rule_cap=0.6), 1.5, 0.5, RULE_CAP),
        (SOUND, Limits(max_position=0.0125), 1.5, 1.25, 2),
        (SOUND._replace(open_risk=0.05), Limits(), 1.5, 1.0, MAX_EXPOSURE),
        (SOUND._replace(daily_risk_used=0.045), Limits(), 1.0, 0.5, 4),
        (SOUND._replace(equity=81_000.0), Limits(), 1.0, 0.5, MAX_DRAWDOWN),
        (SOUND._replace(equity=79_000.0), Limits(), 1.0, 0.0, MAX_DRAWDOWN),
        (SOUND._replace(open_trades=32), Limits(), 1.0, 0.0, MAX_OPEN_TRADES),
        (SOUND._replace(equity=math.nan), Limits(), 1.0, 0.0, INVALID_ACCOUNT),
        (SOUND._replace(open_risk=-0.1), Limits(), 1.0, 0.0, INVALID_ACCOUNT),
        (
            SOUND,
            Limits.model_construct(**{**Limits().model_dump(), "max_exposure": math.nan}),
            1.0,
            0.0,
            INVALID_LIMITS,
        ),
        (SOUND, Limits(), math.nan, 1.0, INVALID_PROPOSAL),
        (SOUND, Limits(), -0.5, 1.0, INVALID_PROPOSAL),
        (SOUND, Limits(), math.inf, 1.0, INVALID_PROPOSAL),
        (SOUND, Limits(allow_skip=False), 0.0, 0.25, SKIP_NOT_ALLOWED),
    ],
)
def test_each_rule_binds_and_is_named(
    account: Account, limits: Limits, proposed: float, size: float, rule: int
) -> None:
    guarded = guard(proposed, account, limits)
    assert guarded.multiplier[0] == size
    assert guarded.binding[0] == rule


def test_out_of_distribution_size_between_tiers_stays_at_or_below_the_rules_tier() -> None:
    strange = [True, True, True, False]
    for rule_cap, expected in ((0.6, [0.5, 0.5, 0.3, 0.6]), (1.5, [1.0, 0.9, 0.3, 1.5])):
        limits = Limits(rule_cap=rule_cap)
        guarded = guard([1.5, 0.9, 0.3, 1.5], SOUND, limits, snap=False, out_of_distribution=strange)
        assert guarded.multiplier.tolist() == expected


def test_out_of_distribution_advice_may_only_lower_the_size() -> None:
    guarded = guard([1.5, 0.25, 1.0], SOUND, Limits(), out_of_distribution=[True, True, True])
    assert guarded.multiplier.tolist() == [1.0, 0.25, 1.0]
    assert guarded.binding.tolist() == [OUT_OF_DISTRIBUTION, NONE, NONE]


def test_a_fine_tuned_size_is_clamped_to_the_cap_and_a_tier_is_floored_below_it() -> None:
    limits = Limits(rule_cap=1.1)
    assert guard(1.4, SOUND, limits, snap=False).multiplier[0] == 1.1
    assert guard(1.4, SOUND, limits, snap=True).multiplier[0] == 1.0


def test_the_last_exact_unit_of_a_budget_can_be_spent() -> None:
    used = 0.0
    for _ in range(5):
        guarded = guard(1.0, SOUND._replace(daily_risk_used=used), Limits())
        assert guarded.multiplier[0] == 1.0
        used += 0.01
    assert guard(1.0, SOUND._replace(daily_risk_used=used), Limits()).multiplier[0] == 0.0


@given(st.floats(0.0, 1.5), some_limits)
def test_the_mask_holds_just_the_sizes_within_the_cap(largest: float, limits: Limits) -> None:
    mask = allowed(np.array([largest]), limits)[0]
    assert mask.any()
    assert (mask[1:] == (SIZES[1:] <= largest)).all()
    assert mask[0] == (limits.allow_skip or largest < SIZES[1])


def test_flooring_finds_the_largest_tier_at_or_below() -> None:
    assert floor_to_tier(np.array([0.0, 0.24, 0.25, 0.99, 1.0, 1.3, 1.5])).tolist() == [0, 0, 1, 2, 3, 4, 5]


def test_many_accounts_at_once_equal_one_at_a_time() -> None:
    random = np.random.default_rng(0)
    account = Account(
        random.uniform(50, 150, 64),
        np.full(64, 120.0),
        random.uniform(0, 0.07, 64),
        random.uniform(0, 0.06, 64),
    )
    proposed = random.uniform(0, 2, 64)
    together = guard(proposed, account, Limits())
    for i in range(64):
        alone = guard(
            proposed[i], Account(*(np.asarray(v)[..., i] if np.ndim(v) else v for v in account)), Limits()
        )
        assert alone.multiplier[0] == together.multiplier[i]
        assert alone.binding[0] == together.binding[i]


@pytest.mark.parametrize(
    "change", [{"max_position": math.nan}, {"max_drawdown": 1.5}, {"surprise": 1}, {"base_risk": -0.01}]
)
def test_limits_refuse_what_is_no_limit(change: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Limits(**change)  # type: ignore[arg-type]


def test_the_cap_is_finite_for_a_vanishing_base_risk() -> None:
    largest, rule = cap(SOUND, Limits(base_risk=1e-300))
    assert largest[0] == 1.5
    assert rule[0] == RULE_CAP
