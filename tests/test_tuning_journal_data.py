"""A journal as the source of a training run, beside the run on the bars that its trades came from."""

import numpy as np
import pytest

from journal.records import outcome_id, signal_id
from market.errors import ConfigError, DataError
from market.sources import load
from mlops.registry import read_export
from policies.bundle import open_bundle
from signals.trades import ROW_FIELDS
from tests.journaled import entries_of, outcome_of, signal_of, write
from tests.test_tuning_train import BARS, Recorder, config
from tuning.train import STAGES, start

OUTCOMES = STAGES[: STAGES.index("outcomes") + 1]


@pytest.fixture(scope="module")
def on_bars(tmp_path_factory):
    training = start(config(), tmp_path_factory.mktemp("bars"), Recorder(), resume=False)
    training.finish(OUTCOMES)
    return training


@pytest.fixture(scope="module")
def source(on_bars, tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('journal')}/journal.db"
    trades, _ = on_bars.finished.trades()
    write(url, entries_of(trades))
    late = signal_of(trades, len(trades) - 1, price=float(trades.close[-1]) * 1.001)
    write(url, [late.to_entry(signal_id(late))])  # not settled yet
    return f"journal:{url}"


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    home, told = tmp_path_factory.mktemp("home"), Recorder()
    training = start(config(data=source), home, told, resume=False)
    return home, training, training.run("all"), told


def test_a_run_on_the_journal_has_the_trades_of_a_run_on_its_bars(on_bars, finished):
    _, training, _, _ = finished
    (ours, parts), (theirs, theirs_parts) = training.finished.trades(), on_bars.finished.trades()
    for name in ROW_FIELDS:
        if name != "bar":
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for part in ("train", "select", "test"):
        np.testing.assert_array_equal(getattr(parts, part), getattr(theirs_parts, part))


def test_all_stages_run_and_those_that_need_bars_say_that_they_are_left_out(finished):
    home, _, result, told = finished
    assert [stage for stage, _ in told.stages] == list(STAGES)
    for stage in ("predictor", "profit_tiers"):
        assert told.notes[stage] == "left out: it needs bars, a journal holds none"
    assert result.comparison is not None
    assert "What the price predictor knows" not in result.report.read_text()
    assert any("1 journaled signals have no outcome yet" in warning for warning in told.warnings)
    (version,) = read_export(home)
    assert version.tags["rule"] == "journal:donchian"
    meta = open_bundle(home / "bundles", result.bundle).meta
    assert meta.rule == "journal:donchian"
    assert list(meta.training["data_digests"]) == ["journal"]


def test_a_resumed_run_keeps_to_the_trades_it_began_with(finished, source, on_bars):
    home, _, _, _ = finished
    trades, _ = on_bars.finished.trades()
    signal = signal_of(trades, 0, strategy_id="later")
    name = signal_id(signal)
    entries = [signal.to_entry(name), outcome_of(trades, 0, signal).to_entry(outcome_id(name))]
    write(source.removeprefix("journal:"), entries)
    again = start(config(data=source), home, Recorder(), resume=True)
    assert len(again.finished.trades()[0]) == len(trades)
    fresh, told = start(config(data=source), home, Recorder(), resume=False), Recorder()
    fresh.listener = told
    fresh.finish(OUTCOMES)
    assert len(fresh.finished.trades()[0]) == len(trades) + 1
    assert any("trades of 2 strategies are mixed" in warning for warning in told.warnings)
    assert fresh.finished.rule() == "journal:mixed"


def test_other_costs_than_the_journals_are_told(source, tmp_path):
    told = Recorder()
    start(config(data=source, costs={"fee_bps": 5.0}), tmp_path, told, resume=False).finish(["load"])
    assert any("cost other than is configured" in warning for warning in told.warnings)


@pytest.mark.parametrize("mode", ["predictor", "tier_optimizer"])
def test_a_mode_that_needs_bars_is_refused_before_anything_is_written(source, tmp_path, mode):
    with pytest.raises(ConfigError, match=f"--mode: got '{mode}'; needs bars"):
        start(config(data=source), tmp_path, Recorder(), resume=False).run(mode)
    assert list(tmp_path.iterdir()) == []


def test_a_source_without_a_database_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="data: got 'journal:'; give journal:URL"):
        start(config(data="journal:"), tmp_path, Recorder(), resume=False).run("all")


def test_a_journal_is_no_source_of_bars(source):
    with pytest.raises(DataError, match="a journal holds trades, no bars"):
        load(source)
    assert load(BARS)
