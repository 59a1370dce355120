"""The drift benchmark: replays share no bar with training, shifts are what they say, counts add up."""

import itertools

import numpy as np
import pytest

from benchmarks._drift_replays import BLOCK, blocks, joined, replay
from benchmarks.drift import Planted, Trial, autocorrelation_time, delay, judge, plant
from features.spec import FEATURE_NAMES, index
from market.samples import load_samples
from mlops.drift_limits import Alarm, Monitor
from mlops.drift_statistics import Reference
from mlops.monitored import NAMES_WITH_CHANGES, with_changes

(HOURS,) = load_samples("eurusd")
(DAYS,) = load_samples("googl")


@pytest.mark.parametrize("bars", [HOURS, DAYS], ids=["hours", "days"])
def test_blocks_are_whole_weeks_that_do_not_overlap(bars: object) -> None:
    found = blocks(bars)
    assert all(a.stop == b.start for a, b in itertools.pairwise(found))
    for part in found:
        days = (bars.time[part.start : part.stop] // 86_400_000_000_000 + 3) % 7
        assert days[0] <= 1 or bars is HOURS  # a Monday, or the Tuesday after a holiday
        assert 0.5 * BLOCK < part.stop - part.start < 1.5 * BLOCK


def test_joined_blocks_go_on_from_the_last_close_in_the_week_after() -> None:
    parts = [blocks(DAYS)[i] for i in (5, 2, 2)]
    bars = joined(DAYS, parts)
    assert len(bars) == sum(part.stop - part.start for part in parts)
    first = parts[0].stop - parts[0].start
    within = np.diff(np.log(bars.close[:first]))
    np.testing.assert_allclose(within, np.diff(np.log(DAYS.close[parts[0]])), atol=1e-12)
    jump = np.log(bars.close[first] / bars.close[first - 1])
    own = DAYS.close[parts[1].start] / DAYS.close[parts[1].start - 1]
    assert jump == pytest.approx(np.log(own), abs=1e-12)
    week = (bars.time // 86_400_000_000_000 + 3) // 7
    assert week[first] - week[first - 1] == 1


def test_the_live_replay_has_other_returns_than_the_training_rows() -> None:
    rows = replay(DAYS, 3, 600)
    lag = index("ret_1")
    assert rows.live.shape == (600, len(FEATURE_NAMES))
    shared = np.intersect1d(np.round(rows.training[:, lag], 12), np.round(rows.live[:, lag], 12))
    assert len(shared) <= 2  # days without a move
    again = replay(DAYS, 3, 600)
    np.testing.assert_array_equal(rows.live, again.live)
    assert not np.array_equal(rows.live, replay(DAYS, 4, 600).live)


def test_a_planted_shift_moves_one_feature_from_its_place_on_and_stays_in_range() -> None:
    rows = replay(DAYS, 0, 1_500)
    reference = Reference.of(with_changes(rows.training))
    monitor = Monitor(NAMES_WITH_CHANGES, reference, np.empty(0), 300)
    planted = plant(rows.live, rows.training, monitor, index("rsi_norm"), 900, 1.0)
    assert (planted.feature, planted.columns) == ("rsi_norm", [index("rsi_norm")])
    before = reference.distances(with_changes(rows.live)[600:900])[planted.columns]
    np.testing.assert_allclose(planted.distances[0], before, atol=1e-14)
    assert planted.distances[-1, 0, 3] > planted.distances[0, 0, 3]
    volatile = plant(rows.live, rows.training, monitor, index("atr_ratio"), 900, 1.0)
    names = [NAMES_WITH_CHANGES[column] for column in volatile.columns]
    assert names == [*(f"ret_{lag}" for lag in range(1, 6)), "atr_ratio", "atr_ratio_change"]


def test_autocorrelation_time_is_one_for_noise_and_that_of_an_average() -> None:
    noise = np.random.default_rng(0).normal(size=20_000)
    assert autocorrelation_time(noise) == pytest.approx(1.0, abs=0.1)
    average = np.convolve(noise, np.ones(10) / 10, "valid")
    assert autocorrelation_time(average) == pytest.approx(10.0, rel=0.15)


def test_rates_and_delays_are_counted_check_by_check() -> None:
    low, high = np.full((1, 4), 0.1), np.full((1, 4), 9.0)
    planted = Planted("mom_5", "fast", [0], np.stack([high, low, low, high, high, high]))
    quiet = np.stack([low, high, high, high, low, high])
    trial = Trial(np.full((10, 1, 4), 1.0), quiet, [planted], 30)
    limits = np.full((1, 4), 2.0)
    assert delay(planted, limits, Alarm(in_a_row=1), 30) == 90.0  # the check at the shift does not count
    assert delay(planted, limits, Alarm(in_a_row=3), 30) == 150.0
    assert delay(planted, limits, Alarm(in_a_row=4), 30) == np.inf
    judged = judge([trial], Alarm(margin=2.0, in_a_row=3))
    assert judged.false_alarm_rate == pytest.approx(1 / 6)
    assert judged.found("fast") == 1.0
