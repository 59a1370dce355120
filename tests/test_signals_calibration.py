import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from market.errors import DataError
from signals.calibration import calibration_report


def test_scores_equal_scikit_learns():
    random = np.random.default_rng(0)
    p = random.random(700)
    won = random.random(700) < p
    report = calibration_report(p, won)
    assert report.brier == pytest.approx(brier_score_loss(won, p), abs=1e-12)
    assert report.log_loss == pytest.approx(log_loss(won, p), abs=1e-12)
    base = np.full(700, won.mean())
    assert report.base_rate == won.mean()
    assert report.base_brier == pytest.approx(brier_score_loss(won, base), abs=1e-12)
    assert report.base_log_loss == pytest.approx(log_loss(won, base), abs=1e-12)


def test_the_calibration_error_tells_honest_from_overconfident():
    random = np.random.default_rng(1)
    truth = random.uniform(0.2, 0.7, 20_000)
    won = random.random(20_000) < truth
    honest = calibration_report(truth, won)
    boastful = calibration_report(np.clip(0.45 + 2 * (truth - 0.45), 0, 1), won)
    assert honest.expected_calibration_error < 0.02
    assert 0.08 < boastful.expected_calibration_error < 0.18
    assert honest.group.sum() == 20_000
    np.testing.assert_allclose(honest.stated, honest.happened, atol=0.04)


def test_certainty_that_fails_costs_much_but_is_finite():
    assert 10 < calibration_report(np.array([1.0, 1.0]), np.array([False, True])).log_loss < 20


@pytest.mark.parametrize(
    ("p", "won"),
    [([], []), ([0.5], [True, False]), ([1.2], [True]), ([np.nan, 0.5], [True, False])],
)
def test_what_is_no_probability_is_refused(p, won):
    with pytest.raises(DataError):
        calibration_report(np.array(p, dtype=float), np.array(won, dtype=bool))
