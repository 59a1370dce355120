"""Trades entered one bar later: the same rows, other outcomes, and nothing for what was never entered."""

import numpy as np

from market.synthetic import regimes
from signals.late_entry import late_entry
from signals.outcomes import Costs, label, pool
from signals.rules import checked, rule
from signals.trades import Trades


def both() -> tuple[Trades, Trades]:
    parts, delayed = [], []
    for seed in (0, 1):
        bars = regimes(bars=4_000, seed=seed, symbol=f"S{seed}")
        signals = checked(rule("donchian").generate(bars), bars)
        parts.append(label(bars, signals, Costs()))
        delayed.append(label(bars, signals, Costs(), delay=1))
    return pool(parts), pool(delayed)


def test_every_trade_keeps_its_row_and_takes_the_outcome_of_its_own_late_entry() -> None:
    trades, late = both()
    made = late_entry(trades, late)
    assert np.array_equal(made.signal_time, trades.signal_time)
    assert np.array_equal(made.stop, trades.stop)
    entered = made.exit_time > made.signal_time
    assert 0 < np.sum(~entered) < 0.1 * len(trades)
    keys = list(zip(late.symbol.tolist(), late.bar.tolist(), strict=True))
    for row in np.flatnonzero(entered)[::7]:
        same = keys.index((int(trades.symbol[row]), int(trades.bar[row])))
        assert made.gross_r[row] == late.gross_r[same]
        assert made.exit_time[row] == late.exit_time[same]


def test_what_is_never_entered_comes_to_nothing_and_costs_nothing() -> None:
    trades, late = both()
    made = late_entry(trades, late)
    missing = made.exit_time == made.signal_time
    assert np.all(made.net_r[missing] == 0.0)
    assert np.all(late_entry(trades, late.take(slice(0, 0))).net_r == 0.0)


def test_nothing_that_ends_at_the_given_time_or_later_is_looked_at() -> None:
    trades, late = both()
    until = int(np.median(late.exit_time))
    made = late_entry(trades, late, until)
    known = late_entry(trades, late)
    over = known.exit_time < until
    assert made.exit_time.max() < max(until, trades.signal_time.max() + 1)
    assert np.array_equal(made.gross_r[over], known.gross_r[over])
    assert np.all(made.net_r[~over] == 0.0)


def test_a_signal_given_by_two_strategies_finds_both_its_outcomes() -> None:
    trades, late = both()
    twice = pool([trades, trades])
    made = late_entry(twice, pool([late, late]))
    single = late_entry(trades, late)
    assert np.array_equal(np.sort(made.gross_r), np.sort(np.repeat(single.gross_r, 2)))
