import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.observation import OBSERVATION_FIELDS
from narratives.reasons import NOTABLE, break_even, ranked, reward_to_risk

VALUES = st.none() | st.floats(-1, 1) | st.floats(-1e6, 1e6)


def strengths(**observation):
    return {reason.field: reason.strength for reason in ranked(observation)}


@pytest.mark.parametrize(
    ("observation", "field", "supports"),
    [
        ({"trend_strength": 0.8}, "trend_strength", True),
        ({"trend_strength": 0.8, "momentum_score": -0.05}, "trend_strength", False),
        ({"trend_strength": 0.05, "momentum_score": 0.05}, "trend_strength", False),
        ({"volatility_regime": 0.95}, "volatility_regime", False),
        ({"volatility_regime": 0.05}, "volatility_regime", True),
        ({"momentum_score": 0.5}, "momentum_score", True),
        ({"momentum_score": -0.5}, "momentum_score", False),
        ({"signal_confidence": 0.45, "risk_reward_ratio": 0.0}, "signal_confidence", True),
        ({"signal_confidence": 0.25, "risk_reward_ratio": 0.0}, "signal_confidence", False),
        ({"entry_quality": 0.5}, "entry_quality", True),
        ({"entry_quality": -0.5}, "entry_quality", False),
        ({"risk_reward_ratio": 0.5}, "risk_reward_ratio", True),
        ({"risk_reward_ratio": -0.5}, "risk_reward_ratio", False),
        ({"current_exposure_pct": 0.5}, "current_exposure_pct", False),
        ({"win_rate_recent": 0.5, "risk_reward_ratio": 0.0}, "win_rate_recent", True),
        ({"win_rate_recent": 0.2, "risk_reward_ratio": 0.0}, "win_rate_recent", False),
        ({"drawdown_pct": 0.5}, "drawdown_pct", False),
        ({"remaining_daily_risk": 0.5}, "remaining_daily_risk", False),
    ],
)
def test_a_reading_speaks_for_or_against_the_trade(observation, field, supports):
    assert (strengths(**observation)[field] > 0) is supports


@pytest.mark.parametrize(
    "observation",
    [
        {},
        {"trend_strength": 0.25, "volatility_regime": 0.5, "momentum_score": 0.05},
        {"current_exposure_pct": 0.0, "drawdown_pct": 0.0, "remaining_daily_risk": 1.0},
        {"signal_confidence": 0.9},  # no distances, so no break-even
        {"max_position_pct": 0.0, "session_left": 0.0},  # the cap is told anyway, the session takes no side
    ],
)
def test_neutral_and_unknown_readings_are_no_reasons(observation):
    assert ranked(observation) == ()


def test_a_clipped_distance_leaves_open_on_which_side_of_break_even_a_chance_lies():
    assert "signal_confidence" not in strengths(signal_confidence=0.15, risk_reward_ratio=1.0)
    assert "signal_confidence" not in strengths(signal_confidence=0.6, risk_reward_ratio=-1.0)
    assert strengths(signal_confidence=0.35, risk_reward_ratio=1.0)["signal_confidence"] == pytest.approx(0.5)
    assert strengths(signal_confidence=0.4, risk_reward_ratio=-1.0)["signal_confidence"] == pytest.approx(
        -0.5
    )


def test_break_even_is_where_a_stop_and_a_target_come_to_nothing():
    for field in (-0.9, 0.0, 0.7):
        share = break_even(field)
        assert share * reward_to_risk(field) - (1 - share) == pytest.approx(0)


@given(st.dictionaries(st.sampled_from(OBSERVATION_FIELDS), VALUES))
def test_reasons_are_notable_bounded_and_in_order_of_strength(observation):
    sizes = [abs(reason.strength) for reason in ranked(observation)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(NOTABLE <= size <= 1 for size in sizes)
    assert {reason.field for reason in ranked(observation)} <= {
        name for name, v in observation.items() if v is not None
    }
