"""Distance to the training rows flags what is strange and lets the rest pass."""

import numpy as np
import pytest

from market.errors import DataError
from policies.support import Support


def rows(count: int = 2000, columns: int = 5, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(count, columns)) @ random.normal(size=(columns, columns))
    mixed[:, 0] = 3.0  # a constant column, as the hour is on daily bars
    return mixed


def test_about_half_a_percent_of_like_rows_is_outside() -> None:
    support = Support.fit(rows())
    assert support.outside(rows()).mean() == pytest.approx(0.005, abs=0.001)
    assert rows(seed=0).std(axis=0)[0] == 0.0


def test_far_rows_and_non_finite_rows_are_outside() -> None:
    support = Support.fit(rows())
    strange = rows(4)
    strange[0, 1] += 100.0
    strange[1, 2] = np.nan
    strange[2, 3] = np.inf
    strange[3] = support.mean
    assert support.outside(strange).tolist() == [True, True, True, False]


def test_the_distance_without_shrinkage_is_mahalanobis() -> None:
    sample = np.random.default_rng(1).normal(size=(500, 3))
    support = Support.fit(sample)
    standard = (sample - sample.mean(0)) / sample.std(0)
    precision = np.linalg.inv(0.95 * np.corrcoef(standard.T) + 0.05 * np.eye(3))
    assert support.distance(sample[:1])[0] == pytest.approx(
        float(np.sqrt(standard[0] @ precision @ standard[0]))
    )


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(DataError, match="F x F"):
        Support(np.zeros(3), np.ones(3), np.eye(4), 1.0)


def test_too_few_or_non_finite_training_rows_are_refused() -> None:
    with pytest.raises(DataError, match="at least 10 finite"):
        Support.fit(rows(9))
    with pytest.raises(DataError):
        Support.fit(np.full((100, 3), np.nan))
