import sqlite3
from contextlib import closing
from dataclasses import fields

import numpy as np
import pytest

from features.spec import FEATURE_NAMES
from journal.history import asked, cost_note, settled
from journal.records import outcome_id, signal_id
from market.errors import DataError, InputError
from market.sources import load
from signals.outcomes import Costs, label
from signals.rules import checked, rule
from signals.trades import Dropped, pool
from tests.journaled import decision_of, entries_of, outcome_of, signal_of, write


def found(bars):
    return label(bars, checked(rule("donchian").generate(bars), bars), Costs())


@pytest.fixture(scope="module")
def trades():
    """Two markets' trades, pooled."""
    markets = [load(f"synthetic:regimes?bars=1500&seed={seed}")[0] for seed in (1, 2)]
    parts = [found(bars) for bars in markets]
    other = parts[1].__class__(
        **{f.name: getattr(parts[1], f.name) for f in fields(parts[1])} | {"symbols": ("B",)}
    )
    return pool([parts[0], other])


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/journal.db"


def test_journaled_signals_and_outcomes_are_the_trades_they_came_from(url, trades):
    write(url, entries_of(trades)[::-1])  # whatever the order they were written in
    history = settled(url)
    assert len(trades) > 20
    for column in fields(trades):
        if column.name not in ("bar", "dropped"):
            np.testing.assert_array_equal(getattr(history.trades, column.name), getattr(trades, column.name))
            if column.name != "symbols":
                assert getattr(history.trades, column.name).dtype == getattr(trades, column.name).dtype
    assert history.trades.dropped == Dropped()
    assert (history.strategies, history.notes) == ({"donchian": len(trades)}, ())


def test_what_an_outcome_leaves_open_is_the_least_that_follows_from_it(url, trades):
    signal = signal_of(trades, 0, entry=None, confidence=None, strategy_id=None)
    open_ = dict.fromkeys(("entry_time", "reason", "holding", "mfe_r", "mae_r"))
    outcome = outcome_of(trades, 0, signal, gross_r=-1.25, **open_)
    name = signal_id(signal)
    write(url, [signal.to_entry(name), outcome.to_entry(outcome_id(name))])
    (row,) = [settled(url).trades]
    assert row.level[0] == row.close[0]
    assert (row.confidence[0], row.mfe_r[0], row.mae_r[0], row.holding[0]) == (0.5, 0.0, -1.25, 1)
    assert row.entry_time[0] == row.signal_time[0]
    assert settled(url).strategies == {"unnamed": 1}


def test_signals_without_an_outcome_are_left_out_and_counted(url, trades):
    write(url, entries_of(trades)[:-3])  # one outcome, and one signal with its own
    history = settled(url)
    assert len(history.trades) == len(trades) - 2
    assert history.trades.dropped.unresolved == 1
    assert history.notes == ("1 journaled signals have no outcome yet and are left out",)


def test_signals_with_features_of_another_definition_are_left_out_and_counted(url, trades):
    write(url, entries_of(trades, [0], feature_fingerprint="older") + entries_of(trades, [1, 2]))
    history = settled(url)
    assert len(history.trades) == 2
    assert history.notes == (
        "1 journaled signals follow other feature definitions than today's and are left out",
    )


def test_a_signal_sent_again_with_other_features_counts_once(url, trades):
    first = signal_of(trades, 0)
    again = first.model_copy(update={"features": dict.fromkeys(FEATURE_NAMES, 0.5)})
    for signal in (first, again):
        name = signal_id(signal)
        outcome = outcome_of(trades, 0, signal)
        write(url, [signal.to_entry(name), outcome.to_entry(outcome_id(name))])
    history = settled(url)
    np.testing.assert_array_equal(history.trades.features, trades.features[:1])
    assert history.rows == {signal_id(first): 0, signal_id(again): 0}
    assert history.notes == ("1 journaled signals were sent again with other features and count once",)


def test_a_signal_sent_again_that_ended_otherwise_is_refused_by_name(url, trades):
    first = signal_of(trades, 0)
    again = first.model_copy(update={"features": dict.fromkeys(FEATURE_NAMES, 0.5)})
    write(url, entries_of(trades, [0]))
    name = signal_id(again)
    write(url, [again.to_entry(name), outcome_of(trades, 0, again, gross_r=9.0).to_entry(outcome_id(name))])
    with pytest.raises(
        DataError, match=rf"{name}\.gross_r: got 9\.0; the same trade has .* in {signal_id(first)}"
    ):
        settled(url)


@pytest.mark.parametrize("field", ["gross_r", "cost_r", "impact_r"])
def test_two_outcomes_that_contradict_each_other_are_refused_by_name(url, trades, field):
    signal = signal_of(trades, 0)
    write(url, entries_of(trades, [0]))
    write(url, [outcome_of(trades, 0, signal, **{field: 9.0}).to_entry("another")])
    with pytest.raises(DataError, match=rf"another\.{field}: got 9\.0; the same trade has .* in outcome-"):
        settled(url)


def test_an_outcome_told_twice_counts_once(url, trades):
    write(url, entries_of(trades, [0]))
    write(url, [outcome_of(trades, 0, signal_of(trades, 0)).to_entry("another")])
    assert len(settled(url).trades) == 1


def test_an_outcome_of_a_signal_that_is_not_here_is_left_out_and_counted(url, trades):
    write(url, entries_of(trades, [0]) + entries_of(trades, [1])[1:])
    history = settled(url)
    assert len(history.trades) == 1
    assert history.notes == ("1 journaled outcomes are of signals that are not here, and left out",)


def test_strategies_that_are_mixed_are_told(url, trades):
    write(url, entries_of(trades, [0, 1]) + entries_of(trades, [2], strategy_id="fade"))
    history = settled(url)
    assert history.strategies == {"donchian": 2, "fade": 1}
    assert history.notes == ("trades of 2 strategies are mixed: donchian 2, fade 1",)


@pytest.mark.parametrize(
    ("signal", "outcome", "message"),
    [
        ({}, {"exit_time": 1}, r"exit_time: got 1; no trade ends before its signal"),
        ({"stop": 5.0, "price": 5.0}, {}, r"stop: got 5\.0; give a stop apart from the price"),
        ({"features": {"one": 1.0}}, {}, "features: got .*; give exactly those of features.spec"),
    ],
)
def test_a_trade_that_cannot_be_is_refused_by_name(url, trades, signal, outcome, message):
    record = signal_of(trades, 0, **signal)
    name = signal_id(record)
    write(url, [record.to_entry(name), outcome_of(trades, 0, record, **outcome).to_entry(outcome_id(name))])
    with pytest.raises(DataError, match=rf"{name}\.{message}"):
        settled(url)


def test_a_journal_with_a_broken_chain_is_not_believed(url, trades, tmp_path):
    write(url, entries_of(trades, [0, 1]))
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection, connection:
        for name in ("update", "delete"):
            connection.execute(f"DROP TRIGGER records_refuse_{name}")
        connection.execute("UPDATE records SET time = 5 WHERE sequence = 2")
    with pytest.raises(DataError, match="journal desk 2: got 'altered'; restore a whole copy of the journal"):
        settled(url)


def test_a_journal_that_is_not_there_is_refused(url):
    with pytest.raises(InputError, match="give a journal that exists"):
        settled(url)


def test_the_digest_follows_the_records(url, trades):
    write(url, entries_of(trades, [0, 1]))
    before = settled(url).digest
    assert settled(url).digest == before
    write(url, entries_of(trades, [2]))
    assert settled(url).digest != before


def test_the_decisions_of_an_account_come_row_by_row_the_first_where_it_asked_again(url, trades):
    write(url, entries_of(trades, [0, 1, 2]))
    rows = settled(url).rows
    signals = [signal_of(trades, row) for row in (2, 0, 0)]
    write(url, [decision_of(signal, n + 1).to_entry(f"d{n}") for n, signal in enumerate(signals)])
    name, found = asked(url, None, rows)
    assert name == "desk"
    assert [(one.row, one.decision.action) for one in found] == [(0, "SMALL"), (2, "MICRO")]


def test_an_account_must_be_named_where_there_are_several(url, trades):
    write(url, entries_of(trades, [0]))
    rows = settled(url).rows
    with pytest.raises(DataError, match="account: got None; name one of the accounts journaled: none"):
        asked(url, None, rows)
    for account in ("b", "a"):
        write(url, [decision_of(signal_of(trades, 0), 1, account=account).to_entry(account)])
    with pytest.raises(DataError, match="account: got None; name one of the accounts journaled: a, b"):
        asked(url, None, rows)
    with pytest.raises(DataError, match="account: got 'c'; give one of the accounts journaled: a, b"):
        asked(url, "c", rows)
    assert asked(url, "b", rows)[0] == "b"


def test_other_costs_than_configured_are_told(trades):
    assert cost_note(trades, Costs()) is None
    assert "journaled trades cost other than is configured" in cost_note(trades, Costs(fee_bps=5.0))
