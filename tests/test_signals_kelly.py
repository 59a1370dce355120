import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from market.errors import DataError
from signals.kelly import calibrate_k, drawdown_k, kelly_fraction

OUTCOME_R = np.array([-1.1, -0.4, 0.3, 2.0])


def test_a_binary_bet_gives_kellys_closed_form():
    p = np.array([0.2, 0.4, 0.5, 0.8])
    win, loss = 2.0, 1.0
    fraction = kelly_fraction(np.stack((1 - p, p), axis=1), np.array([-loss, win]))
    np.testing.assert_allclose(fraction, np.maximum(p / loss - (1 - p) / win, 0.0), atol=1e-12)


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_the_fraction_maximises_expected_log_growth(weights):
    p = np.array(weights) / sum(weights)
    found = kelly_fraction(p[None, :], OUTCOME_R)[0]
    best = minimize_scalar(
        lambda f: -float(p @ np.log1p(f * OUTCOME_R)),
        bounds=(0, 1 / 1.1 - 1e-9),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert found == pytest.approx(best.x, abs=1e-5)


def test_the_fraction_stays_within_its_limits():
    sure = np.array([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert kelly_fraction(sure, OUTCOME_R, limit=0.25).tolist() == [0.25, 0.25, 0.0]
    most = kelly_fraction(sure, OUTCOME_R)
    assert (1 + most * OUTCOME_R.min() > 0).all()
    assert kelly_fraction(np.array([[0.5, 0.5]]), np.array([-1.0, 1.0]))[0] == 0.0
    assert kelly_fraction(np.empty((0, 4)), OUTCOME_R).shape == (0,)


def test_probabilities_that_are_none_are_refused():
    for probability, outcome_r in (
        (np.array([0.5, 0.5]), np.array([-1.0, 1.0])),
        (np.array([[0.5, 0.5]]), OUTCOME_R),
        (np.array([[0.5, np.nan]]), np.array([-1.0, 1.0])),
    ):
        with pytest.raises(DataError):
            kelly_fraction(probability, outcome_r)
    with pytest.raises(DataError):
        kelly_fraction(np.array([[0.5, 0.5]]), np.array([-1.0, 1.0]), limit=0.0)


def test_k_makes_the_rules_size_optimal_for_the_median_good_signal():
    p = np.linspace(0.2, 0.6, 201)
    probability, outcome_r = np.stack((1 - p, p), axis=1), np.array([-1.0, 2.0])
    k, how = calibrate_k(probability, outcome_r, 0.01)
    fraction = kelly_fraction(probability, outcome_r)
    typical = np.median(fraction[fraction > 0])
    assert k == pytest.approx(typical / 0.01)
    assert "1x-neutral" in how
    # The utility's own optimum for that signal is the multiplier 1.
    row = int(np.argmin(np.abs(fraction - typical)))
    sizes = np.linspace(0, 3, 3001)
    worth = probability[row] @ np.log1p(k * 0.01 * sizes * outcome_r[:, None]) / (k * 0.01)
    assert sizes[np.argmax(worth)] == pytest.approx(1.0, abs=0.02)


def test_with_few_edges_k_comes_from_the_drawdown_target():
    losing = np.tile([0.7, 0.3], (500, 1))
    k, how = calibrate_k(losing, np.array([-1.0, 2.0]), 0.01)
    assert k == drawdown_k() == pytest.approx(7.2, abs=0.05)
    assert "drawdown" in how
    assert " 0 of 500" in how
    few = np.concatenate((losing, np.tile([0.5, 0.5], (29, 1))))
    assert "drawdown" in calibrate_k(few, np.array([-1.0, 2.0]), 0.01)[1]
    enough = np.concatenate((losing, np.tile([0.5, 0.5], (30, 1))))
    assert calibrate_k(enough, np.array([-1.0, 2.0]), 0.01)[0] == pytest.approx(25.0)


def test_k_never_asks_for_more_than_kelly():
    slight = np.tile([0.665, 0.335], (100, 1))
    k, how = calibrate_k(slight, np.array([-1.0, 2.0]), 0.02)
    assert k == 1.0
    assert "full Kelly" in how


def test_the_drawdown_k_holds_its_promise_in_simulation():
    random = np.random.default_rng(0)
    k, mean, deviation = drawdown_k(), 0.1, 1.4
    fraction = mean / deviation**2 / k
    log_steps = np.log1p(fraction * random.normal(mean, deviation, size=(1000, 4000)))
    ruined = np.cumsum(log_steps, axis=1).min(axis=1) < math.log(0.8)
    assert 0.02 < ruined.mean() < 0.08


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, float("nan")])
def test_a_base_risk_that_is_no_share_is_refused(wrong):
    with pytest.raises(DataError):
        calibrate_k(np.array([[0.5, 0.5]]), np.array([-1.0, 2.0]), wrong)
