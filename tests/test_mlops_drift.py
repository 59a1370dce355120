"""The whole check: quiet on more of the same, an alarm that names what moved, never silent for want of a
baseline."""

import json
from dataclasses import replace

import numpy as np
import pytest

from features.spec import index
from market.errors import DataError
from mlops.drift import check, unwatched
from mlops.drift_baseline import NoBaseline
from mlops.drift_streams import Observed, Results, Signals
from tests.drift_worlds import seen, trained


def observed(**changed: object) -> Observed:
    return replace(seen("later"), **changed)


def signals() -> Signals:
    found = seen("later").signals
    assert found is not None
    return found


def test_bars_of_the_same_kind_are_no_alarm() -> None:
    report = check(trained(), observed())
    assert report.alarms == ()
    assert [(stream.kind, stream.name) for stream in report.streams] == [
        ("features", "SYNTHETIC"),
        ("predictions", "signals"),
    ]
    assert report.performance is not None
    assert report.headline.startswith("No drift")


def test_one_broken_feature_is_an_alarm_that_names_it() -> None:
    rows = seen("later").markets["SYNTHETIC"].copy()
    rows[-600:, index("rsi_norm")] = 0.0
    report = check(trained(), observed(markets={"SYNTHETIC": rows}))
    (alarm,) = report.alarms
    assert alarm.startswith("features of SYNTHETIC have drifted: rsi_norm")
    assert [f.name for f in report.streams[0].findings if f.drifted] == ["rsi_norm"]
    assert report.kinds == ("features of SYNTHETIC",)


def test_another_mix_of_sizes_is_an_alarm_and_shown_tier_by_tier() -> None:
    now = signals()
    moved = replace(now, size=np.full(len(now), 1.5))
    report = check(trained(), observed(signals=moved))
    assert any("size" in alarm and "predictions" in alarm for alarm in report.alarms)
    mix = report.streams[-1].mix
    assert mix["AGGRESSIVE"][1] == 1.0
    assert sum(before for before, _ in mix.values()) == pytest.approx(1.0)


def test_values_that_moved_are_an_alarm() -> None:
    now = signals()
    report = check(trained(), observed(signals=replace(now, values=now.values + 10.0)))
    assert any("value_" in alarm for alarm in report.alarms)


def test_worse_results_are_an_alarm() -> None:
    known = seen("later").results
    assert known is not None
    report = check(trained(), observed(results=Results(known.d - 5.0, known.r)))
    assert any("below the band" in alarm for alarm in report.alarms)
    assert "performance" in report.kinds


def test_a_market_that_the_model_never_saw_is_an_alarm() -> None:
    rows = seen("later").markets["SYNTHETIC"]
    report = check(trained(), observed(markets={"GOLD": rows}, signals=None, results=None))
    assert report.alarms == ("no baseline for GOLD: the model was trained without it",)
    strange = replace(signals(), symbols=("GOLD",))
    report = check(trained(), observed(markets={}, signals=strange, results=None))
    assert "no baseline for signals of GOLD" in report.alarms[0]


def test_too_few_training_rows_are_no_baseline() -> None:
    short = replace(trained(), markets={"SYNTHETIC": trained().markets["SYNTHETIC"][:700]})
    report = check(short, observed(signals=None, results=None))
    assert report.alarms == ("no baseline for SYNTHETIC: 600 training rows, windows of 300 need 1200",)


def test_too_few_rows_now_are_a_note_beside_what_was_checked() -> None:
    now = signals()
    few = Signals(now.symbols, now.symbol[:20], now.features[:20], now.size[:20], now.values[:20])
    report = check(trained(), observed(signals=few, results=None))
    assert report.alarms == ()
    assert any("predictions of signals were not checked: 20 rows" in note for note in report.notes)


def test_nothing_to_check_is_refused() -> None:
    rows = seen("later").markets["SYNTHETIC"][:100]
    with pytest.raises(DataError, match="100 rows, give at least 360"):
        check(trained(), observed(markets={"SYNTHETIC": rows}, signals=None, results=None))


def test_a_model_without_a_baseline_is_an_alarm() -> None:
    report = unwatched("d" * 64, "a test", NoBaseline("baseline", None, "train again"))
    assert report.alarm
    assert not report.baseline
    assert report.headline == "No baseline: train again"


def test_values_that_one_side_does_not_have_are_left_out_and_noted() -> None:
    now = signals()
    report = check(trained(), observed(signals=replace(now, values=np.empty((len(now), 0)))))
    assert "values of the sizes were not compared: one side has none" in report.notes
    assert "value_SKIP" not in [finding.name for finding in report.streams[-1].findings]


def test_a_report_is_plain_json() -> None:
    report = check(trained(), observed())
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["streams"][0]["findings"][0]["name"] == "mom_5"
    assert told["performance"]["band"]["window"] == 100
    assert told["alarm"] is False
