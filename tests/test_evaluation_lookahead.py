import io
import json
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from evaluation.lookahead import LookaheadReport, analyse, lookahead, perturbed, print_table
from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES
from market.bars import Bars
from market.errors import ConfigError, DataError
from market.synthetic import regimes
from signals.rules import DonchianBreakout, SignalFile, rule
from tests.jumpy_bars import jumpy_bars

BARS = jumpy_bars(700, seed=5)


def only_leak(report):
    assert not report.clean
    assert len(report.leaks) == 1, [leak.column for leak in report.leaks]
    return report.leaks[0]


def whole_frame_normalisation(bars):
    return (bars.close - bars.close.mean()) / bars.close.std()


def centred_mean(bars):
    return bars.frame()["close"].rolling(5, center=True).mean()


def next_close(bars):
    return bars.frame()["close"].shift(-1)


def backfilled_days(bars):
    close = bars.frame()["close"]
    return close.resample("1D").last().reindex(close.index).bfill()


def causal(bars):
    close = bars.frame()["close"]
    return pd.DataFrame(
        {"mean": close.rolling(20).mean(), "change": close.diff(), "ema": close.ewm(5).mean()}
    )


def next_bar_sign(bars):
    """Only a sign, and a plausible one at the end of the data: a leak that truncation alone may miss."""
    rises = np.diff(bars.close, append=bars.close[-1]) > 0
    return rises.astype(np.int64)


class NextBarRule:
    """Buys on breakouts that the next bar confirms."""

    name = "next_bar"

    def generate(self, bars: Bars) -> pd.DataFrame:
        signals = DonchianBreakout().generate(bars)
        row = np.searchsorted(bars.time, signals["timestamp"].dt.as_unit("ns").astype(np.int64))
        confirmed = np.append(np.diff(bars.close), 0.0)[row] * signals["side"].to_numpy() > 0
        return signals[confirmed].reset_index(drop=True)


class LeakyStopRule:
    """The right signals at the right bars, with a stop that knows the lowest price of all."""

    name = "leaky_stop"

    def generate(self, bars: Bars) -> pd.DataFrame:
        signals = DonchianBreakout().generate(bars)
        long = signals[signals["side"] == 1].reset_index(drop=True)
        return long.assign(stop=bars.low.min() * 0.5)


class QuietRule:
    """Well-formed, and never fires."""

    name = "quiet"

    def generate(self, bars: Bars) -> pd.DataFrame:
        return DonchianBreakout().generate(bars).iloc[:0]


@pytest.mark.parametrize(
    ("leaky", "reach"),
    [(whole_frame_normalisation, 600), (centred_mean, 2), (next_close, 1), (backfilled_days, 2)],
)
def test_planted_leak_is_found_by_truncation_and_by_perturbation(leaky, reach):
    leak = only_leak(analyse(BARS, leaky))
    assert leak.shown_by == ("truncation", "perturbation")
    assert leak.reach >= reach
    assert leak.before != leak.after


def test_reach_of_a_leak_is_never_overstated():
    assert only_leak(analyse(BARS, next_close)).reach == 1
    assert only_leak(analyse(BARS, centred_mean)).reach == 2


def test_leak_names_the_first_row_its_time_and_the_values_before_and_after():
    cut = len(BARS) - 2
    leak = only_leak(analyse(BARS, next_close, cuts=1))
    assert (leak.row, leak.cuts) == (cut, 1)
    assert leak.timestamp == pd.Timestamp(BARS.time[cut], tz="UTC").isoformat()
    assert (leak.before, leak.after) == (repr(float(BARS.close[cut + 1])), "nan")
    assert leak.difference is None
    assert only_leak(analyse(BARS, whole_frame_normalisation)).difference > 0


def test_whole_frame_normalisation_moves_the_very_first_row():
    assert only_leak(analyse(BARS, whole_frame_normalisation)).row == 0


def test_leak_that_only_changes_a_sign_is_found():
    assert only_leak(analyse(BARS, next_bar_sign)).reach == 1


def test_leak_in_one_column_of_many_names_that_column_alone():
    matrix = FeaturePipeline().matrix

    def mostly_honest(bars):
        table = pd.DataFrame(matrix(bars), columns=list(FEATURE_NAMES))
        return table.assign(rsi_norm=table["rsi_norm"].shift(-1))

    report = analyse(BARS, mostly_honest, cuts=6)
    assert only_leak(report).column == "rsi_norm"
    assert report.columns == FEATURE_NAMES


def test_rare_event_that_knows_the_next_bar_is_found_among_columns_that_change_daily():
    """Twelve cuts over 700 bars; the leaky column is 1 on five of them and never at an even spread."""

    def rare(bars):
        peak = np.append(bars.close[:-1] > bars.close[1:], False)
        return pd.DataFrame(
            {"day": bars.time // 86_400_000_000_000, "peak": peak & (bars.close > rare.level)}
        )

    rare.level = np.sort(BARS.close)[-8]
    assert 2 <= rare(BARS)["peak"].sum() <= 8
    assert only_leak(analyse(BARS, rare, cuts=12)).column == "peak"


def test_rule_that_uses_the_next_bar_loses_or_gains_signals():
    report = analyse(BARS, NextBarRule())
    leak = report.leaks[0]
    assert report.kind == "rule"
    assert (leak.column, leak.before, leak.after) == ("(signal)", "present", "none")
    assert leak.reach == 1


def test_rule_whose_stop_leaks_names_the_stop():
    assert only_leak(analyse(BARS, LeakyStopRule())).column == "stop"


@pytest.mark.parametrize(
    "name", ["donchian", "mean_reversion?trend_lookback=60", "moving_average_cross?minimum_adx=0"]
)
def test_built_in_rules_are_clean(name):
    report = analyse(BARS, rule(name), cuts=16)
    assert report.clean
    assert report.compared > 40
    assert {"side", "stop", "take_profit"} <= set(report.columns)


def test_the_31_features_are_clean():
    report = analyse(BARS, "features", cuts=8)
    assert report.clean
    assert report.columns == FEATURE_NAMES
    assert report.silent == ()


def test_causal_feature_is_clean_as_frame_series_array_and_list():
    for given in (
        causal,
        lambda bars: causal(bars)["mean"],
        lambda bars: causal(bars).to_numpy(),
        lambda bars: causal(bars)["mean"].tolist(),
        lambda bars: causal(bars).reset_index(drop=True),
    ):
        assert analyse(BARS, given, cuts=4).clean


def test_text_and_flag_columns_are_compared_too():
    def worded(bars, ahead):
        close = bars.frame()["close"]
        rises = close.diff().shift(-ahead) > 0
        return pd.DataFrame({"word": rises.map({True: "up", False: "down"}), "flag": rises})

    assert analyse(BARS, lambda bars: worded(bars, 0)).clean
    assert {leak.column for leak in analyse(BARS, lambda bars: worded(bars, 1)).leaks} == {"word", "flag"}


def test_missing_values_are_equal_and_signed_zeros_are_not():
    def signed_zero(bars):
        return np.full(len(bars), 0.0 if len(bars) == len(BARS) else -0.0)

    assert only_leak(analyse(BARS, signed_zero, cuts=2)).shown_by == ("truncation",)
    assert analyse(BARS, lambda bars: np.where(bars.time % 7 == 0, np.nan, 1.0), cuts=2).clean


def test_column_that_exists_only_with_the_future_is_a_leak():
    def columns(bars):
        table = causal(bars)
        return table if bars.close[-1] == BARS.close[-1] else table[["mean"]]

    report = analyse(BARS, columns, cuts=2)
    assert {leak.column for leak in report.leaks} == {"change", "ema"}
    assert report.leaks[0].after == "no such column"


def test_frame_that_the_subject_writes_again_is_compared_as_it_was():
    """Were the first answer not copied, the second would overwrite it and so equal it."""
    generator = np.random.default_rng(0)
    kept = np.empty((len(BARS), 1))

    def reused(bars):
        kept[: len(bars), 0] = generator.random(len(bars))
        return pd.DataFrame(kept[: len(bars)], copy=False)

    with pytest.raises(DataError, match="equal bars must give equal values"):
        analyse(BARS, reused)


def test_first_row_is_the_earliest_of_both_ways_to_change_the_future():
    def staggered(bars):
        values = np.zeros(len(bars))
        values[-1 if len(bars) < len(BARS) else 0] = bars.close[-1] != BARS.close[-1]
        return values

    leak = only_leak(analyse(BARS, staggered, cuts=1))
    assert (leak.row, leak.reach) == (0, len(BARS) - 1)
    assert leak.shown_by == ("truncation", "perturbation")


def test_every_market_is_analysed_and_named():
    markets = (BARS, jumpy_bars(400, seed=8, symbol="OTHER"))

    def leaks_elsewhere(bars):
        return next_close(bars) if bars.symbol == "OTHER" else bars.close

    report = analyse(markets, leaks_elsewhere, cuts=4)
    assert (report.markets, report.bars) == (("JUMPY", "OTHER"), 1100)
    assert only_leak(report).symbol == "OTHER"


def test_start_analysis_tells_recursive_columns_from_windows():
    def both(bars):
        close = bars.frame()["close"]
        return pd.DataFrame({"window": close.diff(20), "recursive": close.ewm(halflife=60).mean()})

    report = analyse(BARS, both, cuts=2)
    assert report.clean
    assert {start.column for start in report.starts} == {"recursive"}
    shrinking = [start.difference for start in sorted(report.starts, key=lambda start: start.bars)]
    assert shrinking == sorted(shrinking, reverse=True)
    assert len(shrinking) >= 2
    assert shrinking[0] > 0


def test_start_analysis_shows_a_feature_that_has_no_value_yet():
    report = analyse(BARS, lambda bars: bars.frame()["close"].rolling(300).mean().round(6), cuts=2)
    assert [(start.bars, start.difference) for start in report.starts] == [(200, None)]


def test_start_analysis_of_the_features_names_no_window():
    kinds = {start.column for start in analyse(regimes(1500, 3), "features", cuts=1).starts}
    assert {"atr_ratio", "macd_norm"} <= kinds
    assert not kinds & {"mom_20", "bb_position", "choppiness", "mean_reversion"}


@pytest.mark.parametrize("cut", [0, 350, 698])
def test_perturbed_bars_keep_the_past_and_change_every_later_value(cut):
    flat = Bars.from_arrays("FLAT", BARS.time, *[np.full(len(BARS), 5.0)] * 4, np.ones(len(BARS)))
    for bars in (BARS, flat):
        other = perturbed(bars, cut, np.random.default_rng(1))
        assert np.array_equal(other.time, bars.time)
        for name in ("open", "high", "low", "close", "volume"):
            before, after = getattr(bars, name), getattr(other, name)
            assert np.array_equal(before[: cut + 1], after[: cut + 1])
            assert np.all(before[cut + 1 :] != after[cut + 1 :])


def test_market_without_volume_stays_without():
    silent = Bars.from_arrays("SILENT", BARS.time, BARS.open, BARS.high, BARS.low, BARS.close)
    assert not perturbed(silent, 10, np.random.default_rng(0)).volume.any()


def test_same_seed_gives_the_same_report_and_another_seed_other_cuts():
    first, again, other = (analyse(BARS, centred_mean, cuts=8, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (lambda bars: bars.close[1:], r"699 rows.*give 700"),
        (lambda bars: 1 / 0, r"ZeroDivisionError: division by zero.*failed on 700 bars of JUMPY"),
        (lambda bars: None, "NoneType"),
        (lambda bars: np.zeros((len(bars), 2, 2)), r"\(700, 2, 2\)"),
        (lambda bars: bars.frame().iloc[::-1], "index.*in the order of the bars"),
        (
            lambda bars: bars.frame().reset_index(drop=True).sort_values("close"),
            "index.*in the order of the bars",
        ),
        (lambda bars: pd.DataFrame(np.ones((len(bars), 2)), columns=["a", "a"]), "name every column once"),
        (lambda bars: np.full(len(bars), np.nan), "no value"),
        (QuietRule(), "rule quiet: got 'no value'"),
    ],
)
def test_subject_that_cannot_be_analysed_is_refused_by_name(subject, words):
    with pytest.raises(DataError, match=words) as caught:
        analyse(BARS, subject)
    assert getattr(subject, "__name__", "quiet") in str(caught.value)


def test_subject_that_fails_only_without_the_future_says_on_how_many_bars():
    def wants_all(bars):
        return bars.close - bars.close[600]

    words = r"feature wants_all: got 'IndexError.*failed on \d+ bars of JUMPY up to 2020"
    with pytest.raises(DataError, match=words):
        analyse(BARS, wants_all)


def test_subject_that_draws_without_a_seed_is_refused_and_not_called_a_leak():
    generator = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"column value: .*equal bars must give equal values"):
        analyse(BARS, lambda bars: generator.random(len(bars)))


def test_rule_with_an_untradable_signal_is_refused_as_everywhere():
    class WrongSide(LeakyStopRule):
        def generate(self, bars):
            return super().generate(bars).assign(stop=lambda table: table["take_profit"])

    with pytest.raises(DataError, match=r"row 0, column stop.*below the signal bar's close"):
        analyse(BARS, WrongSide())


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("donchain", "features, a rule .*donchian.* or plugin:MODULE:NAME"),
        ("donchian?lookbak=3", "lookbak"),
        ("plugin:no_such_module:rule", "ModuleNotFoundError"),
        ("plugin:math:no_such_name", "AttributeError"),
        ("plugin:math:pi", "a rule's class or a function of bars"),
        ("csv:signals.csv", "not computed from bars"),
        (SignalFile(path="signals.csv"), "not computed from bars"),
        (NextBarRule, "give an instance"),
        (7, "a rule, a function of bars, or a name"),
    ],
)
def test_subject_that_cannot_be_had_is_a_configuration_error(subject, words):
    with pytest.raises(ConfigError, match=words):
        analyse(BARS, subject)


@pytest.mark.parametrize(("key", "value"), [("cuts", 0), ("seed", -1)])
def test_cuts_and_seed_are_checked(key, value):
    with pytest.raises(ConfigError, match=f"{key}: got {value}"):
        analyse(BARS, "features", **{key: value})


def test_too_few_bars_are_refused():
    with pytest.raises(DataError, match="JUMPY rows: got 2; an analysis needs at least 3 bars"):
        analyse(BARS.window(0, 2), causal)


def test_no_markets_are_refused():
    with pytest.raises(ConfigError, match="markets: got 0"):
        analyse((), causal)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    source = """
        from signals.rules import DonchianBreakout

        def ahead(bars):
            return bars.frame()["close"].shift(-1)

        class Mine:
            name = "mine"
            def __init__(self, lookback=20):
                self.lookback = lookback
            def generate(self, bars):
                return DonchianBreakout(lookback=self.lookback).generate(bars)
    """
    (tmp_path / "lookahead_plugin.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("lookahead_plugin", None)


@pytest.mark.usefixtures("plugin")
def test_users_own_function_and_rule_are_found_by_dotted_name():
    assert not analyse(BARS, "plugin:lookahead_plugin:ahead").clean
    report = analyse(BARS, "plugin:lookahead_plugin:Mine?lookback=9")
    assert report.clean
    assert (report.kind, report.subject) == ("rule", "mine")


def test_lookahead_reads_a_source_by_name():
    report = lookahead("synthetic:regimes?bars=600&seed=1", "donchian", 5, 2)
    assert isinstance(report, LookaheadReport)
    assert (report.clean, report.bars, report.cuts, report.seed) == (True, 600, 5, 2)


def test_misspelt_subject_is_told_before_the_data_is_read():
    with pytest.raises(ConfigError, match="donchain"):
        lookahead("no such file", "donchain", 5, 2)


def printed(report: LookaheadReport, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(report, console)
    return console.file.getvalue()


def test_report_is_json_and_its_table_names_what_moved():
    report = analyse(BARS, next_close, cuts=3)
    parsed = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert parsed["clean"] is False
    assert parsed["leaks"][0]["column"] == "close"
    text = printed(report)
    assert "looks ahead: close" in text
    assert report.leaks[0].before in text
    assert ">= 1 bar" in text


@pytest.mark.parametrize("width", [50, 80])
def test_a_narrow_terminal_still_shows_column_row_time_and_values(width):
    report = analyse(
        BARS,
        lambda bars: pd.DataFrame({"z_score_of_the_whole_frame": bars.close - bars.close.mean()}),
        cuts=3,
    )
    text = printed(report, width)
    (leak,) = report.leaks
    assert "…" not in text
    joined = text.replace("\n", "").replace(" ", "")
    for part in (leak.column, f"row {leak.row:,}", leak.timestamp, leak.before, leak.after):
        assert part.replace(" ", "") in joined


def test_clean_report_says_so_and_what_it_could_not_prove():
    report = analyse(
        BARS, lambda bars: pd.DataFrame({"a": bars.close, "b": np.nan, "[c]": bars.open}), cuts=3
    )
    text = printed(report)
    assert report.silent == ("b",)
    assert "no look-ahead found" in text
    assert "nothing is proved of: b" in text


def test_start_table_shows_which_values_depend_on_the_start():
    text = printed(analyse(BARS, lambda bars: bars.frame()["close"].ewm(halflife=60).mean(), cuts=1))
    assert "history starts later (not a fault)" in text
    assert "200 bars" in text
