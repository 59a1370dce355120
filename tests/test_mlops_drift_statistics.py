"""The four drift statistics beside scipy's, on continuous, discrete and constant features."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, wasserstein_distance

from market.errors import DataError
from mlops.drift_statistics import SMOOTHING, STATISTICS, Reference

RANDOM = np.random.default_rng(0)
BEFORE = RANDOM.normal(size=(5_000, 4))
BEFORE[:, 1] = RANDOM.choice([0.0, 1 / 3, 0.5, 2 / 3, 1.0], size=5_000)
BEFORE[:, 2] = RANDOM.standard_t(3, size=5_000)
BEFORE[:, 3] = 1.0
NOW = np.column_stack([BEFORE[:500, 0] + 0.3, BEFORE[500:1000, 1] ** 2, 2 * BEFORE[:500, 2], np.ones(500)])


def test_ks_is_that_of_scipy_to_the_last_digits() -> None:
    found = Reference.of(BEFORE).distances(NOW)[:, STATISTICS.index("ks")]
    expected = [ks_2samp(BEFORE[:, i], NOW[:, i]).statistic for i in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_wasserstein_is_that_of_scipy_within_a_fiftieth_of_a_deviation() -> None:
    found = Reference.of(BEFORE).distances(NOW)[:3, STATISTICS.index("wasserstein")]
    expected = [wasserstein_distance(BEFORE[:, i], NOW[:, i]) / BEFORE[:, i].std() for i in range(3)]
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("feature", [0, 1, 2])
def test_psi_and_js_are_those_of_the_shares_in_the_references_bins(feature: int) -> None:
    before, now = BEFORE[:, feature], NOW[:, feature]
    inner = (
        np.unique(before)[:-1]
        if feature == 1
        else np.quantile(before, np.arange(1, 10) / 10, method="higher")
    )
    bins = len(inner) + 1
    counts = [
        np.bincount(np.searchsorted(inner, rows, side="left"), minlength=bins) for rows in (before, now)
    ]
    p, q = ((count + SMOOTHING) / (count + SMOOTHING).sum() for count in counts)
    found = Reference.of(BEFORE).distances(NOW)[feature]
    psi, js = found[STATISTICS.index("psi")], found[STATISTICS.index("js")]
    assert psi == pytest.approx(((q - p) * np.log(q / p)).sum(), rel=1e-12)
    assert js == pytest.approx(jensenshannon(p, q, base=2), rel=1e-12)


def test_the_same_constant_is_no_distance_and_another_is_the_largest() -> None:
    reference = Reference.of(BEFORE)
    np.testing.assert_array_equal(reference.distances(NOW)[3], 0.0)
    other = NOW.copy()
    other[:, 3] = 2.0
    ks, _, _, wasserstein = reference.distances(other)[3]
    assert (ks, wasserstein) == (1.0, 1.0)


def test_each_feature_is_measured_alone() -> None:
    broken = NOW.copy()
    broken[:, 2] = 1e6
    found = [Reference.of(BEFORE).distances(rows) for rows in (NOW, broken)]
    np.testing.assert_array_equal(found[0][[0, 1, 3]], found[1][[0, 1, 3]])
    assert found[1][2, 0] == 1.0


@pytest.mark.parametrize(
    ("rows", "seen"),
    [
        (np.empty((0, 4)), r"\(0, 4\)"),
        (np.ones((5, 3)), r"\(5, 3\)"),
        (np.full((5, 4), np.nan), "not finite"),
    ],
)
def test_rows_that_cannot_be_measured_are_refused(rows: np.ndarray, seen: str) -> None:
    with pytest.raises(DataError, match=seen):
        Reference.of(BEFORE).distances(rows)
