"""Limits come from windows of the training rows: quiet on those, loud on a shift, per column."""

import numpy as np
import pytest
from scipy.signal import lfilter

from market.errors import DataError
from mlops.drift_limits import Alarm, Monitor, ratio, training_distances
from mlops.drift_statistics import Reference

NAMES = ("fast", "slow", "constant")


def rows(count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(count, 2))
    slow = lfilter([1.0], [1.0, -0.97], noise[:, 1]) * np.sqrt(1 - 0.97**2)
    return np.column_stack([noise[:, 0], slow, np.ones(count)])


MONITOR = Monitor.calibrated(NAMES, rows(6_000, 0), 250)


def drifted(live: np.ndarray) -> list[str]:
    return [finding.name for finding in MONITOR.check(live) if finding.drifted]


def test_a_slow_column_has_wider_limits_than_a_fast_one() -> None:
    assert (MONITOR.limits[1] > 1.5 * MONITOR.limits[0]).all()


def test_rows_of_the_same_kind_are_quiet_in_nearly_every_check() -> None:
    live = rows(20_000, 1)
    checks = range(MONITOR.needed, len(live), 100)
    assert sum(bool(drifted(live[:end])) for end in checks) <= 0.01 * len(checks)


@pytest.mark.parametrize(("column", "shift"), [(0, 0.5), (1, 2.0), (2, 1e-6)])
def test_a_shift_of_one_column_is_named_and_no_other(column: int, shift: float) -> None:
    live = rows(2_000, 2)
    assert drifted(live) == []
    live[1_500:, column] += shift
    assert drifted(live) == [NAMES[column]]


def test_it_takes_several_checks_in_a_row() -> None:
    live = rows(2_000, 2)
    live[-MONITOR.window :, 0] += 3.0  # the newest window alone is full of it
    assert MONITOR.check(live[: -MONITOR.window])[0].ratio < 1.0
    once = Monitor(NAMES, MONITOR.reference, MONITOR.limits, 250, Alarm(in_a_row=1))
    never = Monitor(NAMES, MONITOR.reference, MONITOR.limits, 250, Alarm(in_a_row=12))
    assert once.check(live)[0].drifted
    assert not never.check(live)[0].drifted
    assert never.check(live)[0].ratio > 1.0


def test_an_alarm_needs_as_many_drifted_columns_as_it_says() -> None:
    live = rows(2_000, 2)
    live[1_500:, 0] += 1.0
    findings = MONITOR.check(live)
    assert MONITOR.alarms(findings)
    two = Monitor(NAMES, MONITOR.reference, MONITOR.limits, 250, Alarm(columns=2))
    assert not two.alarms(findings)


def test_a_training_window_is_compared_with_the_rows_outside_it() -> None:
    training = rows(1_000, 3)
    found = training_distances(training, 250)
    others = Reference.of(training[250:])
    np.testing.assert_array_equal(found[0], others.distances(training[:250]))
    np.testing.assert_array_equal(found[-1], Reference.of(training[:-250]).distances(training[-250:]))


def test_a_ratio_of_one_is_the_limit_for_each_statistic() -> None:
    limits = np.array([[0.2, 0.3, 0.1, 0.4]])
    assert ratio(limits, limits) == 1.0
    assert ratio(2 * limits, limits) == 2.0  # PSI by its root, 1.41, is not the largest
    assert ratio(limits * [0.5, 4.0, 0.5, 0.5], limits) == 2.0


def test_too_few_rows_are_refused_with_the_number_needed() -> None:
    with pytest.raises(DataError, match="got 999; windows of 250 need 1000"):
        Monitor.calibrated(NAMES, rows(999, 0), 250)
    with pytest.raises(DataError, match=f"at least {MONITOR.needed}"):
        MONITOR.check(rows(MONITOR.needed - 1, 0))
