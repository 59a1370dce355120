"""The data report: what a careful reader wants to know of bars before trusting them. Knows nothing of models.

Valid bars can still be poor data. The report counts; it changes and refuses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from market.bars import COLUMNS, Bars, iso
from market.errors import DataError

OUTLIER = 10.0  # robust standard deviations
LISTED = 10
WORST = 3  # of them in words
_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND
_WEEK = 7 * _DAY
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Gap(NamedTuple):
    """Bars missing between two that are there, in session time: closed nights and weekends do not count."""

    after: str
    before: str
    missing: int


class Outlier(NamedTuple):
    """A close that is `robust_z` robust standard deviations of log returns away from the one before."""

    time: str
    log_return: float
    robust_z: float


@dataclass(frozen=True)
class QualityReport:
    """Plain data, ready for JSON by `dataclasses.asdict`. Times are ISO 8601 in UTC, shares lie in [0, 1].

    spacing_seconds: the most frequent distance between bars; `regular_share` of all distances equal it.
    gaps, missing_bars, longest_gap: breaks inside sessions; `largest_gaps` lists the worst.
    duplicates: bars that repeat all prices and the volume of the bar before; `longest_repeat` in a row.
    outliers: returns beyond 10 robust standard deviations; `largest_outliers` lists the worst.
    bars_by_weekday, bars_by_hour: where the sessions lie (UTC).
    session_share: the part of a week in which the market usually trades.
    """

    symbol: str
    bars: int
    first: str
    last: str
    spacing_seconds: float
    regular_share: float
    gaps: int
    missing_bars: int
    longest_gap: int
    largest_gaps: list[Gap]
    duplicates: int
    longest_repeat: int
    outliers: int
    largest_outliers: list[Outlier]
    bars_by_weekday: dict[str, int]
    bars_by_hour: dict[str, int]
    session_share: float
    zero_volume_share: float


def report(bars: Bars) -> QualityReport:
    """The quality of n >= 2 bars; `DataError` for fewer."""
    if len(bars) < 2:
        raise DataError(f"{bars.symbol} bars", len(bars), "a report needs at least 2")
    steps = np.diff(bars.time)
    distances, counts = np.unique(steps, return_counts=True)
    spacing = int(distances[np.argmax(counts)])
    missing, session_share = _missing(bars.time, spacing)
    worst = _largest(missing)
    repeated = np.logical_and.reduce([np.diff(getattr(bars, name)) == 0 for name in COLUMNS])
    returns = np.diff(np.log(bars.close))
    scores = _robust_scores(returns)
    wild = np.where(np.abs(scores) > OUTLIER, np.abs(scores), 0.0)
    weekdays = np.bincount((bars.time // _DAY + 3) % 7, minlength=7)  # 1970-01-01 was a Thursday
    hours = np.bincount(bars.time % _DAY // (3600 * _SECOND), minlength=24)
    return QualityReport(
        symbol=bars.symbol,
        bars=len(bars),
        first=iso(int(bars.time[0])),
        last=iso(int(bars.time[-1])),
        spacing_seconds=spacing / _SECOND,
        regular_share=float(np.mean(steps == spacing)),
        gaps=int(np.count_nonzero(missing)),
        missing_bars=int(missing.sum()),
        longest_gap=int(missing.max()),
        largest_gaps=[Gap(iso(bars.time[i]), iso(bars.time[i + 1]), int(missing[i])) for i in worst],
        duplicates=int(np.count_nonzero(repeated)),
        longest_repeat=_longest_run(repeated),
        outliers=int(np.count_nonzero(wild)),
        largest_outliers=[
            Outlier(iso(bars.time[i + 1]), float(returns[i]), float(scores[i])) for i in _largest(wild)
        ],
        bars_by_weekday=dict(zip(_WEEKDAYS, weekdays.tolist(), strict=True)),
        bars_by_hour={f"{hour:02d}": int(count) for hour, count in enumerate(hours)},
        session_share=session_share,
        zero_volume_share=float(np.mean(bars.volume == 0)),
    )


def in_words(seen: QualityReport) -> tuple[str, ...]:
    """The report as a few lines of text: spacing and sessions, then gaps, repeats and outliers with the worst
    of each."""
    days = ", ".join(f"{day} {count:,}" for day, count in seen.bars_by_weekday.items() if count)
    hours = [hour for hour, count in seen.bars_by_hour.items() if count]
    lines = [
        f"spacing {seen.spacing_seconds:,.0f} s, kept by {seen.regular_share:.1%} of the bars",
        f"session {seen.session_share:.1%} of the week: {days}; {len(hours)} hours of the day (UTC), "
        f"{hours[0]} to {hours[-1]}",
        f"gaps {seen.gaps:,}, {seen.missing_bars:,} bars missing in them, the longest {seen.longest_gap:,}",
        *(f"    {gap.missing:,} missing after {gap.after}" for gap in seen.largest_gaps[:WORST]),
        f"repeats {seen.duplicates:,} bars equal to the one before, at most {seen.longest_repeat:,} in a row",
        f"outliers {seen.outliers:,} returns beyond {OUTLIER:g} robust standard deviations",
        *(
            f"    {one.log_return:+.2%} at {one.time}, {one.robust_z:+.1f} deviations"
            for one in seen.largest_outliers[:WORST]
        ),
    ]
    if seen.zero_volume_share:
        lines.append(f"no volume in {seen.zero_volume_share:.1%} of the bars")
    return tuple(lines)


def _missing(time: NDArray[np.int64], spacing: int) -> tuple[NDArray[np.int64], float]:
    """Bars missing after each bar but the last [n-1], and the share of the week that is session.

    The week is cut into slots of one spacing. A slot is session where at least half of the weeks that the
    data covers have a bar in it, and only empty session slots are missing bars. (So a market that keeps
    summer time shows a gap of an hour per week for part of the year, and a holiday is a gap of its session.)
    """
    if spacing > _DAY or _WEEK % spacing:
        # No weekly pattern to learn from: every distance is measured in spacings.
        return np.maximum(np.rint(np.diff(time) / spacing).astype(np.int64) - 1, 0), 1.0
    slots = _WEEK // spacing
    slot = (time - time[0]) // spacing  # counted from the first bar
    place = slot % slots
    weeks = (slot[-1] - np.arange(slots)) // slots + 1  # how often each place lies between first and last bar
    filled = np.bincount(place[np.diff(slot, prepend=-1) > 0], minlength=slots)
    session = (filled > 0) & (filled * 2 >= weeks)
    before = np.concatenate(([0], np.cumsum(session)))
    # Session slots from the first bar up to, not including, a slot.
    passed = (slot // slots) * before[-1] + before[place]
    between = np.diff(passed) - session[place[:-1]]
    return np.maximum(between, 0), float(session.mean())


def _robust_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(value - median) / robust standard deviation [n]; 0 where the values do not vary at all."""
    off = values - np.median(values)
    # 1.4826 and 1.2533 make both estimate the standard deviation of a normal law; the second serves where
    # more than half of the values are equal.
    scale = 1.4826 * np.median(np.abs(off)) or 1.2533 * np.mean(np.abs(off))
    return off / scale if scale > 0 else np.zeros_like(off)


def _largest(values: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of the largest values above 0, at most `LISTED`, the largest first."""
    order = np.argsort(-values, kind="stable")[:LISTED]
    return order[values[order] > 0]


def _longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))
