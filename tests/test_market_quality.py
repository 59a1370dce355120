"""The data report counts what is really wrong, and nothing that is right."""

import dataclasses
import json

import numpy as np
import pytest

from market.bars import COLUMNS, Bars
from market.errors import DataError
from market.quality import in_words, report
from market.sources import load
from market.synthetic import regimes

HOUR = 3_600_000_000_000
WEEK = 168 * HOUR
MONDAY = 946_857_600_000_000_000  # 2000-01-03


def bars_at(time: np.ndarray, **changes: np.ndarray) -> Bars:
    """Synthetic prices at these times."""
    base = regimes(len(time), seed=1)
    columns = {name: getattr(base, name).copy() for name in COLUMNS} | changes
    return Bars.from_arrays("X", time, *(columns[name] for name in COLUMNS))


def office_hours(weeks: int) -> np.ndarray:
    """Monday to Friday, 09:00 to 16:00."""
    days = MONDAY + WEEK * np.arange(weeks)[:, None] + 24 * HOUR * np.arange(5)
    return (days[:, :, None] + HOUR * np.arange(9, 17)).ravel()


def test_nights_and_weekends_are_no_gaps():
    found = report(bars_at(office_hours(6)))
    assert (found.gaps, found.missing_bars, found.longest_gap, found.largest_gaps) == (0, 0, 0, [])
    assert found.session_share == 40 / 168
    assert found.spacing_seconds == 3600.0
    assert found.bars_by_weekday == dict.fromkeys(("Mon", "Tue", "Wed", "Thu", "Fri"), 48) | {
        "Sat": 0,
        "Sun": 0,
    }
    assert [hour for hour, count in found.bars_by_hour.items() if count] == [f"{h:02d}" for h in range(9, 17)]


def test_missing_bars_of_a_session_are_gaps_with_their_place_and_length():
    time = office_hours(6)
    kept = np.delete(time, [43, 100, 101, 102])
    found = report(bars_at(kept))
    assert (found.gaps, found.missing_bars, found.longest_gap) == (2, 4, 3)
    assert found.largest_gaps[0] == ("2000-01-19T12:00:00+00:00", "2000-01-19T16:00:00+00:00", 3)
    assert found.largest_gaps[1].missing == 1


def test_a_holiday_is_a_gap_of_its_session():
    time = office_hours(6)
    holiday = (time >= MONDAY + 3 * WEEK) & (time < MONDAY + 3 * WEEK + 24 * HOUR)
    found = report(bars_at(time[~holiday]))
    assert (found.gaps, found.missing_bars) == (1, 8)


def test_a_gap_of_weeks_counts_every_session_in_it():
    time = office_hours(20)
    closed = (time >= MONDAY + 8 * WEEK) & (time < MONDAY + 11 * WEEK)
    assert report(bars_at(time[~closed])).missing_bars == 3 * 40


def test_a_market_that_never_closes_has_the_plain_count_of_missing_bars():
    rng = np.random.default_rng(0)
    kept = np.sort(rng.choice(24 * 7 * 5, 800, replace=False))
    kept[[0, -1]] = 0, 24 * 7 * 5 - 1
    kept = np.unique(kept)
    found = report(bars_at(MONDAY + HOUR * kept))
    assert found.missing_bars == 24 * 7 * 5 - len(kept)
    assert found.session_share == 1.0


def test_distances_without_a_weekly_pattern_are_measured_in_spacings():
    months = np.cumsum([0, 30, 30, 30, 90, 30, 31]) * 24 * HOUR + MONDAY
    found = report(bars_at(months))
    assert (found.gaps, found.missing_bars, found.spacing_seconds) == (1, 2, 30 * 86_400.0)
    assert found.regular_share == 4 / 6


def test_bars_that_repeat_the_bar_before_are_counted():
    time = office_hours(2)
    base = regimes(len(time), seed=1)
    columns = {name: getattr(base, name).copy() for name in COLUMNS}
    for name in COLUMNS:
        columns[name][10:14] = columns[name][10]
        columns[name][31] = columns[name][30]
    columns["close"][50] = columns["close"][49]
    columns["high"][50], columns["low"][50] = 1e9, 1e-9
    found = report(bars_at(time, **columns))
    assert (found.duplicates, found.longest_repeat) == (4, 3)


def test_a_return_far_from_the_others_is_an_outlier_with_its_time_and_size():
    time = office_hours(10)
    close = 100.0 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.001, len(time))))
    close[200:] *= 1.1
    found = report(bars_at(time, open=close, high=close, low=close, close=close))
    assert found.outliers == 1
    (outlier,) = found.largest_outliers
    assert (
        outlier.time == Bars.from_arrays("X", time, close, close, close, close).frame().index[200].isoformat()
    )
    assert outlier.log_return == pytest.approx(np.log(1.1), abs=0.005)
    assert 70 < outlier.robust_z < 130


def test_prices_that_hardly_ever_move_do_not_divide_by_zero():
    flat = np.full(80, 100.0)
    still = report(bars_at(office_hours(2), open=flat, high=flat, low=flat, close=flat))
    assert still.outliers == 0
    jump = flat.copy()
    jump[40:] = 200.0
    moved = report(bars_at(office_hours(2), open=jump, high=jump, low=jump, close=jump))
    assert moved.outliers == 1


def test_the_share_of_bars_without_volume():
    volume = np.ones(80)
    volume[::4] = 0.0
    assert report(bars_at(office_hours(2), volume=volume)).zero_volume_share == 0.25


def test_the_report_survives_json():
    found = dataclasses.asdict(report(load("sample:eurusd")[0]))
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["bars"] == 6225
    assert again["largest_gaps"][0] == ["2017-12-25T07:00:00+00:00", "2017-12-25T22:00:00+00:00", 14]
    assert again["session_share"] == 120 / 168


@pytest.mark.parametrize("name", ["googl", "nasdaq", "aapl"])
def test_daily_markets_miss_about_nine_holidays_a_year(name):
    found = report(load(f"sample:{name}")[0])
    years = found.bars / 252
    assert 8 < found.missing_bars / years < 11
    assert found.session_share == 5 / 7


def test_one_bar_is_too_few_for_a_report():
    with pytest.raises(DataError, match="at least 2"):
        report(regimes(1, seed=0))
    with pytest.raises(DataError, match="at least 2"):
        report(regimes(10, seed=0).window(3, 3))


def test_the_words_name_spacing_sessions_and_the_worst_places():
    time = office_hours(6)
    kept = np.delete(time, [43, 100, 101, 102])
    text = "\n".join(in_words(report(bars_at(kept))))
    assert "spacing 3,600 s" in text
    assert "session 23.8% of the week: Mon" in text
    assert "8 hours of the day (UTC), 09 to 16" in text
    assert "gaps 2, 4 bars missing in them, the longest 3" in text
    assert "3 missing after 2000-01-19T12:00:00+00:00" in text
    assert "Sat" not in text


def test_the_words_name_repeats_outliers_and_bars_without_volume():
    (bars,) = load("sample:eurusd")
    seen = report(bars)
    text = "\n".join(in_words(seen))
    for outlier in seen.largest_outliers[:3]:
        assert outlier.time in text
        assert f"{outlier.robust_z:+.1f}" in text
    assert f"outliers {seen.outliers:,}" in text
    assert "no volume" not in text
    silent = Bars.from_arrays(
        "SILENT", bars.time, bars.open, bars.high, bars.low, bars.close, 0.0 * bars.volume
    )
    assert "no volume in 100.0% of the bars" in "\n".join(in_words(report(silent)))
