import importlib
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from market.bars import Bars
from market.errors import ConfigError
from market.sources import load
from signals.rules import (
    DonchianBreakout,
    MeanReversion,
    MovingAverageCross,
    Rule,
    checked,
    rule,
    rule_names,
)
from tests.jumpy_bars import bars_of, jumpy_bars

RULES = (
    "donchian",
    "donchian?lookback=55",
    "mean_reversion",
    "mean_reversion?trigger=zscore&trend_lookback=60",
    "moving_average_cross",
    "moving_average_cross?fast=5&slow=15&minimum_adx=0",
)


def changed_after(bars: Bars, row: int) -> Bars:
    """The same bars up to and with `row`, another market afterwards."""
    columns = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    other = jumpy_bars(len(bars), seed=99)
    for name, column in columns.items():
        column[row + 1 :] = getattr(other, name)[row + 1 :] * 1.7
    return Bars.from_arrays(bars.symbol, bars.time, **columns)


@pytest.mark.parametrize("name", RULES)
def test_no_signal_depends_on_a_later_bar(name):
    bars = jumpy_bars(900, seed=3)
    whole = rule(name).generate(bars)
    assert len(whole) >= 5, "the test would prove nothing"
    # Cut at every signal, on the bar before it, and in between: a peek of one bar would move a row.
    at = np.searchsorted(bars.time, whole["timestamp"].dt.as_unit("ns").astype(np.int64))
    for last in sorted({*at[:25], *(at[:25] - 1), 260, 500, 777}):
        known = whole[whole["timestamp"] <= pd.Timestamp(bars.time[last], tz="UTC")]
        for told in (bars.window(0, last + 1), changed_after(bars, last)):
            seen = rule(name).generate(told)
            seen = seen[seen["timestamp"] <= pd.Timestamp(bars.time[last], tz="UTC")]
            pd.testing.assert_frame_equal(seen.reset_index(drop=True), known, check_exact=True)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_passes_its_own_check_on_both_sides(name):
    bars = jumpy_bars(4000, seed=4)
    table = rule(name).generate(bars)
    signals = checked(table, bars)
    assert len(signals) == len(table)
    assert set(signals.side) == {-1, 1}
    assert (table["strategy_id"] == rule(name).name).all()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("count", [0, 1, 2, 14])
def test_a_rule_gives_no_signal_on_too_few_bars(name, count):
    bars = jumpy_bars(400, seed=5).window(0, count)
    table = rule(name).generate(bars)
    assert list(table.columns[:5]) == ["timestamp", "symbol", "side", "stop", "take_profit"]
    assert len(table) == len(checked(table, bars)) == 0


def test_donchian_fires_once_per_breakout_at_the_broken_channel():
    quiet = [(100.0, 101.0, 99.0, 100.0)] * 25
    broken = [(100.0, 103.0, 100.0, 102.5), (102.5, 104.0, 102.0, 103.5), (103.5, 104.0, 99.5, 100.0)]
    down = [(100.0, 100.5, 94.0, 95.0), (95.0, 95.5, 94.5, 95.0)]
    bars = bars_of(quiet + broken + down)
    table = DonchianBreakout().generate(bars)
    signals = checked(table, bars)
    # Row 25 breaks 101 upwards, row 26 goes on (no second signal), row 28 breaks 99 downwards.
    np.testing.assert_array_equal(signals.bar, [25, 28])
    np.testing.assert_array_equal(signals.side, [1, -1])
    np.testing.assert_array_equal(signals.level, [101.0, 99.0])
    np.testing.assert_array_equal(signals.max_hold, [40, 40])
    # Wilder ATR14 after 25 true ranges of 2 and one of 3.
    atr = (13 * 2.0 + 3.0) / 14
    assert signals.stop[0] == pytest.approx(102.5 - 2 * atr, abs=1e-12)
    assert signals.take_profit[0] == pytest.approx(102.5 + 4 * atr, abs=1e-12)


def test_a_close_on_the_channel_is_no_breakout():
    quiet = [(100.0, 101.0, 99.0, 100.0)] * 30
    assert len(DonchianBreakout().generate(bars_of([*quiet, (100.0, 101.0, 100.0, 101.0)]))) == 0
    assert len(DonchianBreakout().generate(bars_of([*quiet, (100.0, 101.5, 100.0, 101.1)]))) == 1


@pytest.mark.parametrize(("source", "count"), [("eurusd", 458), ("googl", 222), ("nasdaq", 551)])
def test_donchian_fires_as_often_as_was_measured_on_the_samples(source, count):
    bars = load(f"sample:{source}")[0]
    assert len(DonchianBreakout().generate(bars)) == count


def test_mean_reversion_fades_with_the_trend_only():
    bars = jumpy_bars(4000, seed=6)
    for trigger in ("rsi", "zscore"):
        table = MeanReversion(trigger=trigger, trend_lookback=100).generate(bars)
        signals = checked(table, bars)
        trend = pd.Series(bars.close).rolling(100).mean().to_numpy()[signals.bar]
        mean = pd.Series(bars.close).rolling(20).mean().to_numpy()[signals.bar]
        close = bars.close[signals.bar]
        assert len(signals) > 20
        assert (signals.side * (close - trend) > 0).all()
        np.testing.assert_allclose(signals.take_profit, mean, rtol=1e-12)
        # The fade goes towards the mean, and the stop is away from it.
        assert (signals.side * (mean - close) > 0).all()
        assert (signals.side * (close - signals.stop) > 0).all()


def test_a_moving_average_cross_needs_the_other_side():
    def sides(last: list[float]) -> list[int]:
        closes = [*np.arange(100.0, 130.0), *last]
        bars = bars_of([(value, value + 0.5, value - 0.5, value) for value in closes])
        return MovingAverageCross(fast=1, slow=2, minimum_adx=0).generate(bars)["side"].tolist()

    assert sides([130.0, 135.0]) == []
    assert sides([127.0, 124.0]) == [-1]
    assert sides([127.0, 133.0, 140.0]) == [-1, 1]
    # Two equal closes: the means meet and part on the same side, then on the other.
    assert sides([130.0, 130.0, 135.0]) == []
    assert sides([130.0, 130.0, 125.0]) == [-1]


def test_the_adx_filter_only_removes_signals():
    bars = jumpy_bars(3000, seed=7)
    loose = MovingAverageCross(minimum_adx=0).generate(bars)
    strict = MovingAverageCross(minimum_adx=30).generate(bars)
    assert 0 < len(strict) < len(loose)
    assert strict["timestamp"].isin(loose["timestamp"]).all()


def test_a_short_target_below_zero_is_no_signal():
    wild = [(10.0, 16.0, 4.0, 10.0)] * 30
    bars = bars_of([*wild, (10.0, 10.0, 2.0, 3.0)])
    assert len(DonchianBreakout(stop_atr=0.1, target_atr=0.2).generate(bars)) == 1
    assert len(DonchianBreakout(stop_atr=0.1, target_atr=0.5).generate(bars)) == 0


def test_parameters_are_read_from_the_name_and_written_into_it():
    made = rule("donchian?lookback=55&stop_atr=1.5")
    assert isinstance(made, DonchianBreakout)
    assert (made.lookback, made.stop_atr, made.target_atr) == (55, 1.5, 4.0)
    assert made.name == "donchian?lookback=55&stop_atr=1.5"
    assert rule(made.name) == made
    assert rule("donchian").name == "donchian"
    assert {"donchian", "mean_reversion", "moving_average_cross"} <= set(rule_names())


@pytest.mark.parametrize(
    "name",
    [
        "donchain",
        "",
        "donchian?lookback=1",
        "donchian?lookback=abc",
        "donchian?lookback=nan",
        "donchian?stop_atr=inf",
        "donchian?stop_atr=-1",
        "donchian?lokback=20",
        "donchian?lookback=20&lookback=30",
        "donchian?lookback",
        "donchian?",
        "mean_reversion?trigger=macd",
        "moving_average_cross?fast=50&slow=20",
        "plugin:no_such_module_anywhere:Rule",
        "plugin:json:NoSuchClass",
        "plugin:json",
        "plugin::",
        "plugin:json:JSONDecoder",
    ],
)
def test_an_unknown_rule_or_parameter_is_refused_with_what_exists(name):
    if name == "donchian?":
        assert rule(name) == DonchianBreakout()
        return
    with pytest.raises(ConfigError) as caught:
        rule(name)
    assert caught.value.mend
    if name == "donchain":
        assert "mean_reversion" in str(caught.value)
        assert "csv:PATH" in str(caught.value)
    if "lookback=1" in name:
        assert "lookback" in caught.value.field


def test_a_rule_made_in_python_refuses_wrong_parameters_too():
    with pytest.raises(ValidationError):
        DonchianBreakout(lookback=0)


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """A package that is not ours, installed with an entry point."""
    (tmp_path / "every_tenth.py").write_text(
        textwrap.dedent(
            """
            import pandas as pd

            class EveryTenth:
                name = "every_tenth"

                def __init__(self, step=10):
                    if step < 1:
                        raise ValueError("step must be at least 1")
                    self.step = step

                def generate(self, bars):
                    frame = bars.frame().iloc[:: self.step]
                    return pd.DataFrame({
                        "timestamp": frame.index, "symbol": bars.symbol, "side": 1,
                        "stop": frame["close"].to_numpy() * 0.9,
                        "take_profit": frame["close"].to_numpy() * 1.1,
                    })
            """
        )
    )
    described = tmp_path / "every_tenth-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: every-tenth\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[ballast.rules]\nevery_tenth = every_tenth:EveryTenth\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("every_tenth", None)


@pytest.mark.parametrize("prefix", ["plugin:every_tenth:EveryTenth", "every_tenth"])
@pytest.mark.usefixtures("third_party")
def test_a_third_party_rule_is_found_by_module_or_entry_point(prefix):
    bars = jumpy_bars(100)
    assert isinstance(rule(prefix), Rule)
    assert len(checked(rule(prefix).generate(bars), bars)) == 10
    assert len(rule(f"{prefix}?step=25").generate(bars)) == 4
    assert "every_tenth" in rule_names()
    with pytest.raises(ConfigError, match="at least 1"):
        rule(f"{prefix}?step=0")
    with pytest.raises(ConfigError, match="stride"):
        rule(f"{prefix}?stride=3")
