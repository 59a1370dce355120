from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from features.spec import FEATURE_NAMES, WARMUP
from market.bars import Bars
from market.errors import DataError
from market.sources import load
from signals.outcomes import (
    REASONS,
    STOP,
    TARGET,
    TIME,
    Costs,
    Dropped,
    Trades,
    label,
    pool,
    trade_fields,
    trade_ranks,
)
from signals.rules import DonchianBreakout, checked
from signals.signal_frame import Signals
from signals.trades import ROW_FIELDS
from tests.jumpy_bars import bars_of, jumpy_bars

QUIET = [(100.0, 101.0, 99.0, 101.0)] * 4
FREE = Costs(fee_bps=0, spread_bps=0, slippage_bps=0, impact_bps=0)


def rows_of(bars: Bars) -> np.ndarray:
    """A features matrix whose first column is the bar's own number, so that a row out of place shows."""
    features = np.zeros((len(bars), len(FEATURE_NAMES)))
    features[:, 0] = np.arange(len(bars))
    return features


def random_signals(bars: Bars, count: int, seed: int) -> Signals:
    random = np.random.default_rng(seed)
    bar = np.sort(random.integers(0, len(bars), count))
    side = random.choice(np.array([-1, 1]), count)
    close = bars.close[bar]
    return Signals(
        bar=bar,
        side=side.astype(np.int8),
        stop=close * (1 - side * random.uniform(0.003, 0.06, count)),
        take_profit=close * (1 + side * random.uniform(0.003, 0.1, count)),
        level=close * 0.999,
        max_hold=random.integers(1, 30, count).astype(np.int32),
        confidence=random.random(count),
    )


def one(side: int, stop: float, take_profit: float, max_hold: int = 5, bar: int = WARMUP - 1) -> Signals:
    return Signals(
        bar=np.array([bar]),
        side=np.array([side], dtype=np.int8),
        stop=np.array([stop]),
        take_profit=np.array([take_profit]),
        level=np.array([100.0]),
        max_hold=np.array([max_hold], dtype=np.int32),
        confidence=np.array([0.5]),
    )


def after(*rows: tuple[float, float, float, float]) -> Bars:
    """Quiet bars up to the signal bar (close 100), then these."""
    return bars_of([(100.0, 100.5, 99.5, 100.0)] * WARMUP + list(rows))


def settled(bars: Bars, signals: Signals, costs: Costs = FREE, delay: int = 0) -> Trades:
    return label(bars, signals, costs, rows_of(bars), delay)


def brute_force(bars: Bars, signals: Signals, row: int, delay: int):
    """One trade the slow way: (outcome name, entry row, exit row, exit price, best price, worst price)."""
    side, stop, target = int(signals.side[row]), float(signals.stop[row]), float(signals.take_profit[row])
    entry_row = int(signals.bar[row]) + 1 + delay
    if entry_row >= len(bars):
        return "unresolved", None, None, None, None, None
    entry = float(bars.open[entry_row])
    better = (lambda a, b: a > b) if side > 0 else (lambda a, b: a < b)
    if not better(entry, stop) or not better(target, entry):
        return "void", None, None, None, None, None
    best = worst = entry
    for now in range(entry_row, entry_row + int(signals.max_hold[row])):
        if now >= len(bars):
            return "unresolved", None, None, None, None, None
        opened, closed = float(bars.open[now]), float(bars.close[now])
        good = float(bars.high[now] if side > 0 else bars.low[now])
        bad = float(bars.low[now] if side > 0 else bars.high[now])
        best = opened if better(opened, best) else best
        worst = opened if better(worst, opened) else worst
        if not better(opened, stop):
            return "stop", entry_row, now, opened, best, worst
        if not better(target, opened):
            return "target", entry_row, now, opened, best, worst
        if not better(bad, stop):
            return "stop", entry_row, now, stop, best, stop
        worst = bad if better(worst, bad) else worst
        if not better(target, good):
            return "target", entry_row, now, target, target, worst
        best = good if better(good, best) else best
    return "time", entry_row, now, closed, best, worst


@pytest.mark.parametrize("delay", [0, 1])
def test_every_outcome_equals_a_brute_force_walk(delay):
    seen = {"stop": 0, "target": 0, "time": 0, "void": 0, "unresolved": 0, "early": 0, "gap": 0}
    for seed in range(4):
        bars = jumpy_bars(500, seed=seed)
        signals = random_signals(bars, 800, seed)
        trades = settled(bars, signals, delay=delay)
        at = 0
        for row in range(len(signals)):
            if signals.bar[row] < WARMUP - 1:
                seen["early"] += 1
                continue
            outcome, entry_row, exit_row, price, best, worst = brute_force(bars, signals, row, delay)
            seen[outcome] += 1
            if outcome in ("void", "unresolved"):
                continue
            side = float(signals.side[row])
            distance = abs(float(bars.close[signals.bar[row]]) - float(signals.stop[row]))
            entry = float(bars.open[entry_row])
            assert trades.bar[at] == signals.bar[row]
            assert REASONS[trades.reason[at]] == outcome
            assert trades.entry_time[at] == bars.time[entry_row]
            assert trades.exit_time[at] == bars.time[exit_row] + bars.interval
            assert trades.holding[at] == exit_row - entry_row + 1
            # Exact: no tolerance.
            assert trades.stop_distance[at] == distance
            assert trades.gross_r[at] == side * (price - entry) / distance
            assert trades.mfe_r[at] == side * (best - entry) / distance
            assert trades.mae_r[at] == side * (worst - entry) / distance
            seen["gap"] += outcome == "stop" and price != signals.stop[row]
            at += 1
        assert at == len(trades)
        assert trades.dropped.warm_up + trades.dropped.void + trades.dropped.unresolved == 800 - at
    assert trades.dropped.void > 0
    assert all(count >= 20 for count in seen.values()), seen
    assert seen["stop"] + seen["target"] + seen["time"] > 1000


@pytest.mark.parametrize(
    ("side", "rows", "reason", "exit_price"),
    [
        # A bar that spans both barriers is a stop.
        (1, [(100.0, 111.0, 94.0, 105.0)], STOP, 95.0),
        (-1, [(100.0, 106.0, 89.0, 95.0)], STOP, 105.0),
        # An open through the stop fills there, worse than the stop.
        (1, [(100.0, 101.0, 99.0, 100.0), (92.0, 111.0, 91.0, 93.0)], STOP, 92.0),
        (-1, [(100.0, 101.0, 99.0, 100.0), (108.0, 109.0, 89.0, 100.0)], STOP, 108.0),
        # An open through the target fills there, better than the target, whatever the bar does next.
        (1, [(100.0, 101.0, 99.0, 100.0), (112.0, 113.0, 94.0, 95.0)], TARGET, 112.0),
        (-1, [(100.0, 101.0, 99.0, 100.0), (88.0, 106.0, 87.0, 100.0)], TARGET, 88.0),
        # A touch is enough, on either barrier.
        (1, [(100.0, 101.0, 95.0, 100.0)], STOP, 95.0),
        (1, [(100.0, 110.0, 95.5, 100.0)], TARGET, 110.0),
        # The close of the fifth bar, the entry bar being the first; the sixth comes too late.
        (1, [*QUIET, (101.0, 103.0, 100.0, 102.0), (102.0, 120.0, 102.0, 120.0)], TIME, 102.0),
    ],
)  # fmt: skip
def test_a_barrier_fills_as_written(side, rows, reason, exit_price):
    stop, target = (95.0, 110.0) if side > 0 else (105.0, 90.0)
    trades = settled(after(*rows), one(side, stop, target))
    assert trades.reason.tolist() == [reason]
    assert trades.gross_r[0] == side * (exit_price - 100.0) / 5.0


def test_the_planned_stop_distance_is_the_unit_wherever_the_entry_was():
    # Planned risk 5 from the close at 100; the entry opens at 102 and is stopped at 95: 1.4 R are lost.
    trades = settled(after((102.0, 103.0, 94.0, 95.0)), one(1, 95.0, 110.0))
    assert trades.gross_r[0] == -1.4
    assert trades.mae_r[0] == -1.4
    assert trades.mfe_r[0] == 0.0


def test_excursions_err_to_the_disadvantage_on_the_last_bar():
    stopped = settled(after((100.0, 104.0, 99.0, 103.0), (103.0, 109.0, 90.0, 91.0)), one(1, 95.0, 110.0))
    assert (stopped.mfe_r[0], stopped.mae_r[0]) == (0.8, -1.0)
    won = settled(after((100.0, 104.0, 99.0, 103.0), (103.0, 115.0, 96.0, 114.0)), one(1, 95.0, 110.0))
    assert (won.mfe_r[0], won.mae_r[0]) == (2.0, -0.8)


def test_what_cannot_be_traded_is_dropped_and_counted():
    bars = after((94.0, 95.0, 93.0, 94.0), (94.0, 95.0, 93.0, 94.0))
    signal = one(1, 95.0, 110.0)
    assert settled(bars, signal).dropped == Dropped(void=1)
    assert settled(after((95.0, 96.0, 94.0, 95.0)), signal).dropped == Dropped(void=1)
    assert settled(after((110.0, 111.0, 109.0, 110.0)), signal).dropped == Dropped(void=1)
    assert settled(after((100.0, 101.0, 99.0, 100.0)), signal).dropped == Dropped(unresolved=1)
    assert settled(after(), signal).dropped == Dropped(unresolved=1)
    early = settled(after(*[(100.0, 101.0, 99.0, 100.0)] * 9), one(1, 95.0, 110.0, bar=WARMUP - 2))
    assert early.dropped == Dropped(warm_up=1)
    assert len(early) == 0
    just = settled(after(*[(100.0, 101.0, 99.0, 100.0)] * 9), one(1, 95.0, 110.0, bar=WARMUP - 1))
    assert len(just) == 1


def test_costs_are_those_of_the_formula():
    costs = Costs(fee_bps=1.0, spread_bps=2.0, slippage_bps=0.5, impact_bps=0.75)
    trades = settled(after((102.0, 111.0, 101.0, 110.0)), one(1, 95.0, 110.0), costs)
    assert trades.cost_r[0] == pytest.approx((2 * 1.5 + 2.0) / 1e4 * 100.0 / 5.0, rel=1e-12)
    assert trades.impact_r[0] == pytest.approx(2 * 0.75 / 1e4 * 100.0 / 5.0, rel=1e-12)
    assert trades.net_r[0] == trades.gross_r[0] - trades.cost_r[0] - trades.impact_r[0]


BARS = jumpy_bars(400, seed=11)
SIGNALS = random_signals(BARS, 200, seed=11)


@given(
    st.lists(st.floats(0, 500), min_size=4, max_size=4),
    st.sampled_from(["fee_bps", "spread_bps", "slippage_bps", "impact_bps"]),
    st.floats(0, 500),
)
def test_a_higher_cost_never_raises_net_r(levels, raised, by):
    names = ("fee_bps", "spread_bps", "slippage_bps", "impact_bps")
    costs = Costs(**dict(zip(names, levels, strict=True)))
    dearer = costs.model_copy(update={raised: getattr(costs, raised) + by})
    before, then = settled(BARS, SIGNALS, costs), settled(BARS, SIGNALS, dearer)
    assert (then.net_r <= before.net_r).all()
    np.testing.assert_array_equal(then.gross_r, before.gross_r)
    if by > 1e-6:
        assert (then.net_r < before.net_r).all()


def test_costs_refuse_rebates_and_what_is_no_number():
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Costs(fee_bps=wrong)


def test_an_outcome_does_not_depend_on_bars_after_its_exit():
    whole = settled(BARS, SIGNALS)
    for last in (150, 222, 301):
        early = SIGNALS.bar <= last
        known = Signals(**{name: getattr(SIGNALS, name)[early] for name in SIGNALS.__dataclass_fields__})
        part = settled(BARS.window(0, last + 1), known)
        same = whole.take(whole.exit_time <= BARS.time[last] + BARS.interval)
        assert len(part) == len(same) > 0
        for name in ROW_FIELDS:
            np.testing.assert_array_equal(getattr(part, name), getattr(same, name))


def test_trades_carry_the_row_of_their_signal_bar():
    trades = settled(BARS, SIGNALS)
    np.testing.assert_array_equal(trades.features[:, 0], trades.bar)
    np.testing.assert_array_equal(trades.signal_time, BARS.time[trades.bar] + BARS.interval)
    np.testing.assert_array_equal(trades.close, BARS.close[trades.bar])
    assert (trades.entry_time >= trades.signal_time).all()
    assert (trades.exit_time > trades.entry_time).all()


def test_pooled_trades_are_in_time_order_under_their_own_symbols():
    first = settled(BARS, SIGNALS)
    other = jumpy_bars(300, seed=12, symbol="AHEAD")
    second = settled(other, random_signals(other, 150, seed=12))
    pooled = pool([first, second])
    assert pooled.symbols == ("AHEAD", "JUMPY")
    assert len(pooled) == len(first) + len(second)
    assert (np.diff(pooled.signal_time) >= 0).all()
    assert sum(pooled.dropped) == sum(first.dropped) + sum(second.dropped)
    for number, part in ((0, second), (1, first)):
        own = pooled.take(pooled.symbol == number)
        for name in ROW_FIELDS[1:]:
            np.testing.assert_array_equal(getattr(own, name), getattr(part, name))
    swapped = pool([second, first])
    np.testing.assert_array_equal(swapped.gross_r, pooled.gross_r)
    again = pool([pooled.take(slice(0, 90)), pooled.take(slice(90, None))])
    for name in ROW_FIELDS:
        np.testing.assert_array_equal(getattr(again, name), getattr(pooled, name))
    with pytest.raises(DataError):
        pool([])


def test_taking_rows_keeps_every_column_together():
    trades = settled(BARS, SIGNALS)
    rows = np.array([5, 1, 3])
    for name in ROW_FIELDS:
        np.testing.assert_array_equal(getattr(trades.take(rows), name), getattr(trades, name)[rows])
    assert len(trades.take(slice(0, 0))) == 0
    assert replace(trades, symbols=("X",)).take(rows).symbols == ("X",)


def test_no_signals_give_no_trades():
    nothing = Signals(**{name: getattr(SIGNALS, name)[:0] for name in SIGNALS.__dataclass_fields__})
    trades = settled(BARS, nothing)
    assert len(trades) == 0
    assert trades.net_r.shape == (0,)
    assert len(pool([trades, settled(BARS, SIGNALS)])) > 0


def test_wrong_features_and_delays_are_refused():
    with pytest.raises(DataError, match="features"):
        label(BARS, SIGNALS, FREE, np.zeros((3, 31)))
    with pytest.raises(DataError, match="delay"):
        label(BARS, SIGNALS, FREE, rows_of(BARS), -1)


def test_the_pooled_samples_give_enough_trades_to_learn_from():
    parts = [
        label(bars, checked(DonchianBreakout().generate(bars), bars), Costs()) for bars in load("sample:demo")
    ]
    trades = pool(parts)
    assert trades.symbols == ("AAPL", "EURUSD", "GOOGL", "IBM", "MSFT", "NASDAQ")
    assert len(trades) == 2034
    assert trades.dropped == Dropped(warm_up=43, unresolved=8, void=3)
    fields = trade_fields(trades, trade_ranks(trades))
    assert np.isfinite(fields).all()


def test_outcomes_of_a_real_rule_carry_finite_features():
    bars = jumpy_bars(1500, seed=13)
    trades = label(bars, checked(DonchianBreakout().generate(bars), bars), Costs())
    assert len(trades) > 50
    assert np.isfinite(trades.features).all()
    assert np.isfinite(trades.net_r).all()
