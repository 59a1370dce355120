"""Performance drift: quiet while nothing changes, loud for the worse, about results alone."""

import numpy as np
import pytest

from market.errors import DataError
from mlops.drift_performance import band, change, performance

RANDOM = np.random.default_rng(0)
D, R = RANDOM.normal(0.05, 0.5, size=600), RANDOM.choice([-1.0, 2.0], p=[0.6, 0.4], size=600)


def results(count: int, seed: int, worse: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return (
        random.normal(0.05 - worse, 0.5, size=count),
        random.choice([-1.0, 2.0], p=[0.6, 0.4], size=count) - worse,
    )


def test_the_band_holds_the_share_of_windows_that_it_promises() -> None:
    known = band(D, 100)
    means = np.array([results(100, seed)[0].mean() for seed in range(2_000)])
    assert known.low < known.mean < known.high
    assert np.mean(means < known.low) <= 0.01


def test_the_band_of_clustered_differences_is_wider() -> None:
    clustered = np.repeat(D[:60], 10)
    assert np.ptp(band(clustered, 100)[1:3]) > 2.0 * np.ptp(band(D, 100)[1:3])


def test_results_of_the_same_kind_are_no_alarm() -> None:
    found = performance((D, R), results(400, 1), 100)
    assert not found.worse
    assert found.changed is None


def test_sizes_that_cost_more_than_they_bring_are_an_alarm() -> None:
    d, r = results(400, 1)
    d[200:] -= 0.3
    found = performance((D, R), (d, r), 100)
    assert (found.below, found.worse, found.changed) == (True, True, None)


def test_sizes_that_bring_more_than_before_are_none() -> None:
    d, r = results(400, 1)
    found = performance((D, R), (d + 1.0, r), 100)
    assert found.mean > found.band.high
    assert not found.worse


def test_one_bad_window_alone_is_none() -> None:
    d, r = results(400, 1)
    assert performance((D, R), (d, r), 100).mean > 0.0
    d[-5:] = -20.0
    found = performance((D, R), (d, r), 100)
    assert found.mean < found.band.low
    assert not found.below


def test_a_market_that_pays_less_is_found_and_one_that_pays_more_is_no_alarm() -> None:
    for worse, alarm in ((1.5, True), (-1.5, False)):
        d, r = results(300, 2)
        r[220:] -= worse
        found = performance((D, R), (d, r), 100)
        assert found.changed is not None
        assert (found.r_now < found.r_before, found.worse) == (alarm, alarm)


def test_a_change_before_the_newest_window_is_not_told_again() -> None:
    r = results(400, 3)[1]
    r[100:] -= 1.0
    assert change(R, r, 400) is not None
    assert change(R, r, 100) is None


def test_too_few_results_are_refused() -> None:
    with pytest.raises(DataError, match="signals before: got 199; windows of 100 need 200"):
        band(D[:199], 100)
    with pytest.raises(DataError, match="settled signals: got 109; give at least 110"):
        performance((D, R), results(109, 0), 100)


def test_results_that_never_vary_have_a_band_of_one_point() -> None:
    known = band(np.full(300, 0.25), 100)
    assert known[:3] == (0.25, 0.25, 0.25)
