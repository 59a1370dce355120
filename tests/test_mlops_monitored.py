"""What is monitored: causal, and blind to the level of volatility where the level says nothing."""

import numpy as np

from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES, WARMUP, index
from market.synthetic import regimes
from mlops.monitored import HALF_LIFE, NAMES_WITH_CHANGES, RETURNS, steadied, with_changes

ROWS = FeaturePipeline().matrix(regimes(1_500, 0, 60))[WARMUP - 1 :]


def test_a_later_row_changes_no_earlier_one() -> None:
    changed = ROWS.copy()
    changed[1_000:] *= 2.0
    np.testing.assert_array_equal(with_changes(changed)[:1_000], with_changes(ROWS)[:1_000])


def test_twice_the_volatility_leaves_the_returns_as_they_are() -> None:
    doubled = ROWS.copy()
    doubled[:, RETURNS] *= 2.0
    doubled[:, index("atr_ratio")] *= 2.0
    np.testing.assert_allclose(steadied(doubled)[:, RETURNS], steadied(ROWS)[:, RETURNS], rtol=1e-12)


def test_a_change_is_the_level_above_its_trailing_mean_and_forgets() -> None:
    rows = np.ones((1_000, len(FEATURE_NAMES)))
    rows[500:, index("atr_ratio")] = np.e
    change = with_changes(rows)[:, NAMES_WITH_CHANGES.index("atr_ratio_change")]
    np.testing.assert_allclose(change[:500], 0.0, atol=1e-12)
    assert change[500] == 1.0
    np.testing.assert_allclose(change[500 + HALF_LIFE], 0.5, rtol=1e-9)


def test_no_volatility_at_all_is_still_a_number() -> None:
    assert np.isfinite(with_changes(np.zeros((300, len(FEATURE_NAMES))))).all()
