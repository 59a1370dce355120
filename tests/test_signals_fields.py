import json

import numpy as np
import pytest

from features.spec import FEATURE_NAMES, index
from market.errors import DataError
from signals.fields import SIGNAL_FIELDS, VolatilityRanks, signal_fields
from signals.outcomes import Costs, label, pool, trade_fields, trade_ranks
from signals.rules import DonchianBreakout, checked
from tests.jumpy_bars import jumpy_bars


def ranks() -> VolatilityRanks:
    symbol = np.repeat([0, 1, 2], [200, 200, 10])
    ratio = np.concatenate((np.linspace(0.01, 0.02, 200), np.linspace(0.1, 0.2, 200), np.full(10, 0.5)))
    return VolatilityRanks.fit(("CALM", "WILD", "NEW"), symbol, ratio)


def test_the_rank_is_the_share_of_the_symbols_own_training_rows_below():
    made = ranks()
    np.testing.assert_allclose(made.rank("CALM", np.array([0.0, 0.01, 0.015, 0.02, 9.0])), [0, 0, 0.5, 1, 1])
    assert made.rank("WILD", np.array([0.02]))[0] == 0.0


def test_ranks_lie_on_straight_lines_between_the_quantiles():
    made, ratio = ranks(), np.array([np.nan, -np.inf, *np.linspace(0.0, 0.6, 997), np.inf])
    ratio[5:30] = made.quantiles["*"][20:45]  # on a quantile itself
    for symbol, values in made.quantiles.items():
        straight = np.interp(ratio, values, np.linspace(0.0, 1.0, values.size))
        np.testing.assert_array_equal(made.rank(symbol, ratio), straight)
    mixed = np.where(np.arange(len(ratio)) % 2, "WILD", "CALM")
    each = [made.rank(str(name), ratio[i : i + 1])[0] for i, name in enumerate(mixed)]
    np.testing.assert_array_equal(made.rank(mixed.tolist(), ratio), each)


def test_an_unseen_symbol_is_ranked_among_all():
    made = ranks()
    assert "NEW" not in made.quantiles, "ten rows say too little"
    for symbol in ("NEW", "NEVER"):
        assert made.rank(symbol, np.array([0.05]))[0] == pytest.approx(200 / 410, abs=0.02)


def test_ranks_survive_json_bit_for_bit():
    made = ranks()
    back = VolatilityRanks.from_dict(json.loads(json.dumps(made.to_dict())))
    ratio = np.random.default_rng(0).uniform(0, 0.6, 500)
    for symbol in ("CALM", "WILD", "NEVER"):
        np.testing.assert_array_equal(back.rank(symbol, ratio), made.rank(symbol, ratio))


@pytest.mark.parametrize("wrong", [{}, {"*": [0.2, 0.1]}, {"*": [0.1, float("nan")]}, {"*": [0.1]}])
def test_quantiles_that_are_none_are_refused(wrong):
    with pytest.raises(DataError):
        VolatilityRanks.from_dict(wrong)


def test_ranks_need_a_finite_row():
    with pytest.raises(DataError):
        VolatilityRanks.fit(("A",), np.zeros(5, dtype=np.int32), np.full(5, np.nan))


def fields_of(side: int, **changed: float) -> dict[str, float]:
    """Fields of one signal at close 100, ATR 2 (WILD's lowest volatility), level 99, stop 96, target 108."""
    given = {"close": 100.0, "level": 99.0, "stop": 96.0, "take_profit": 108.0, "confidence": 0.7} | changed
    features = np.zeros((1, len(FEATURE_NAMES)))
    features[0, index("atr_ratio")] = changed.pop("atr_ratio", 0.02)
    features[0, index("mom_20")] = 0.5
    features[0, index("trend_strength")] = 0.3
    prices = (np.array([given[name]]) for name in ("close", "level", "stop", "take_profit", "confidence"))
    made = signal_fields("CALM", features, np.array([side], dtype=np.int8), *prices, ranks())
    return dict(zip(SIGNAL_FIELDS, made[0].tolist(), strict=True))


def test_the_six_fields_of_a_long_and_a_short():
    long = fields_of(1)
    assert long == {
        "trend_strength": 0.3,
        "volatility_regime": 1.0,
        "momentum_score": pytest.approx(np.tanh(0.5)),
        "rule_confidence": 0.7,
        "entry_quality": pytest.approx(0.5),
        "risk_reward_ratio": 0.0,
    }
    short = fields_of(-1, level=101.0, stop=102.0, take_profit=95.0)
    assert short["momentum_score"] == pytest.approx(-np.tanh(0.5))
    assert short["entry_quality"] == pytest.approx(0.5)
    assert short["risk_reward_ratio"] == pytest.approx(0.5)


def test_quality_and_reward_are_clipped_and_a_still_market_is_neutral():
    assert fields_of(1, level=50.0)["entry_quality"] == 1.0
    assert fields_of(1, level=150.0)["entry_quality"] == -1.0
    assert fields_of(1, take_profit=200.0)["risk_reward_ratio"] == 1.0
    assert fields_of(1, take_profit=100.1)["risk_reward_ratio"] == -1.0
    assert fields_of(1, atr_ratio=0.0)["entry_quality"] == 0.0


def test_rows_of_other_features_are_refused():
    one = np.ones(1)
    with pytest.raises(DataError, match="give rows of 31"):
        signal_fields("ONE", np.zeros((1, 30)), one, one, one, one, one, one, ranks())


def test_pooled_trades_get_the_fields_of_their_own_symbol():
    parts = []
    for seed, symbol in ((1, "ONE"), (2, "TWO")):
        bars = jumpy_bars(2500, seed=seed, symbol=symbol)
        parts.append(label(bars, checked(DonchianBreakout().generate(bars), bars), Costs()))
    trades = pool(parts)
    made = trade_ranks(trades)
    assert set(made.quantiles) == {"ONE", "TWO", "*"}
    together = trade_fields(trades, made)
    assert together.shape == (len(trades), 6)
    assert np.abs(together).max() <= 1.0
    assert np.isfinite(together).all()
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(together[trades.symbol == number], trade_fields(part, made))
