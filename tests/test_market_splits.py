"""No split lets a trade be open on both sides of a cut."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from market.errors import ConfigError, DataError
from market.splits import purged_folds, time_split, walk_forward

HUGE = 4 * 10**18


@st.composite
def pooled_trades(draw):
    """Signal and exit times of pooled markets, unsorted, often equal, held for nothing or nearly for ever."""
    count = draw(st.integers(5, 60))
    signal = draw(st.lists(st.integers(-200, 200), min_size=count, max_size=count))
    held = draw(st.lists(st.one_of(st.integers(0, 12), st.integers(0, 400)), min_size=count, max_size=count))
    scale = draw(st.sampled_from([1, 3_600_000_000_000, HUGE // 200]))
    signal = np.array(signal, dtype=np.int64)
    exits = np.minimum(signal + np.array(held), 400)
    return signal * scale, exits * scale


def overlap(train: np.ndarray, test: np.ndarray, signal: np.ndarray, exits: np.ndarray) -> bool:
    """Is any training trade open at an instant at which any tested one is? By comparing each with each."""
    return any(signal[i] <= exits[j] and signal[j] <= exits[i] for i in train.tolist() for j in test.tolist())


def ascending(rows: np.ndarray) -> bool:
    return rows.dtype == np.int64 and bool((np.diff(rows) > 0).all())


@given(pooled_trades(), st.integers(2, 5), st.integers(0, 50))
def test_no_training_trade_of_a_fold_is_open_during_a_tested_one(trades, folds, embargo):
    signal, exits = trades
    try:
        found = purged_folds(signal, exits, folds, embargo)
    except DataError:
        assume(False)
    tested = np.concatenate([test for _, test in found])
    assert sorted(tested.tolist()) == list(range(len(signal)))
    for train, test in found:
        assert ascending(train)
        assert ascending(test)
        assert len(train)
        assert len(test)
        assert not overlap(train, test, signal, exits)
        last = int(exits[test].max())
        after = [int(time) for time in signal[train] if time > last]
        assert all(time - last > embargo for time in after)
        # Nothing is dropped without need: what is left out touches the test's time or its embargo.
        for row in set(range(len(signal))) - set(train.tolist()) - set(test.tolist()):
            assert exits[row] >= signal[test].min()
            assert int(signal[row]) - last <= embargo


@given(pooled_trades(), st.integers(1, 5), st.floats(0.05, 0.95))
def test_walk_forward_trains_only_on_trades_closed_before_the_test(trades, folds, first_train):
    signal, exits = trades
    try:
        found = walk_forward(signal, exits, folds, first_train)
    except DataError:
        assume(False)
    assert len(found) == folds
    for place, (train, test) in enumerate(found):
        assert ascending(train)
        assert ascending(test)
        assert exits[train].max() < signal[test].min()
        assert not overlap(train, test, signal, exits)
        if place:
            before_train, before_test = found[place - 1]
            assert set(before_train.tolist()) <= set(train.tolist())
            assert signal[before_test].max() < signal[test].min()
    tested = np.concatenate([test for _, test in found])
    assert set(tested.tolist()) == set(np.flatnonzero(signal >= signal[found[0][1]].min()).tolist())


@given(pooled_trades())
def test_the_three_parts_follow_one_another_and_never_touch(trades):
    signal, exits = trades
    try:
        train, select, test = time_split(signal, exits)
    except DataError:
        assume(False)
    assert exits[train].max() < signal[select].min()
    assert exits[select].max() < signal[test].min()
    assert exits[train].max() < signal[test].min()
    for rows in (train, select, test):
        assert ascending(rows)
    assert set(test.tolist()) == set(np.flatnonzero(signal >= signal[test].min()).tolist())


def evenly(count: int = 100, held: int = 25) -> tuple[np.ndarray, np.ndarray]:
    signal = 10 * np.arange(count, dtype=np.int64)
    return signal, signal + held


def test_a_split_has_exactly_the_rows_it_should():
    train, select, test = time_split(*evenly())
    np.testing.assert_array_equal(train, np.arange(0, 58))  # 58 and 59 are still open at 600
    np.testing.assert_array_equal(select, np.arange(60, 78))
    np.testing.assert_array_equal(test, np.arange(80, 100))


def test_fractions_whose_sum_is_inexact_still_cut_at_the_whole_row():
    assert 0.7 + 0.1 < 0.8
    assert time_split(*evenly(), (0.7, 0.1, 0.2)).test[0] == 80


def test_a_trade_that_closes_in_the_bar_of_the_next_signal_is_dropped():
    signal, exits = evenly(held=10)
    assert 59 not in time_split(signal, exits).train
    assert 59 in time_split(signal, exits - 1).train


def test_one_cut_holds_for_all_markets():
    signal, exits = evenly(50)
    both = np.concatenate([signal, signal]), np.concatenate([exits, exits])
    train, select, test = time_split(*both)
    for rows in (train, select, test):
        np.testing.assert_array_equal(rows[rows < 50] + 50, rows[rows >= 50])


def test_rows_keep_their_numbers_when_the_trades_are_not_sorted():
    order = np.random.default_rng(0).permutation(100)
    signal, exits = evenly()
    train, _, test = time_split(signal[order], exits[order])
    assert sorted(order[train]) == list(range(58))
    assert sorted(order[test]) == list(range(80, 100))


def test_walk_forward_starts_after_the_first_share_and_ends_with_the_last_trade():
    found = walk_forward(*evenly(), folds=3, first_train=0.4)
    assert [(int(test[0]), int(test[-1])) for _, test in found] == [(40, 59), (60, 79), (80, 99)]
    assert [(int(train[0]), int(train[-1])) for train, _ in found] == [(0, 37), (0, 57), (0, 77)]


def test_folds_are_purged_on_both_sides_and_embargoed_after():
    train, test = purged_folds(*evenly(), folds=5, embargo=30)[1]
    np.testing.assert_array_equal(test, np.arange(20, 40))
    # 18 and 19 are open at 200; 40, 41 begin before the last exit at 415, 42 to 44 within 30 of it.
    np.testing.assert_array_equal(train, np.concatenate([np.arange(18), np.arange(45, 100)]))


def test_an_embargo_to_the_end_of_time_does_not_overflow():
    signal, exits = evenly()
    with pytest.raises(DataError, match="training part of fold 0: got '0 of 100 trades'"):
        purged_folds(signal + HUGE, exits + HUGE, folds=2, embargo=HUGE)


@pytest.mark.parametrize(
    "fractions",
    [(0.5, 0.5), (0.6, 0.3, 0.3), (1.0, 0.0, 0.0), (1.2, -0.1, -0.1), (0.6, 0.2, float("nan")), ()],
)
def test_fractions_that_are_no_three_parts_are_refused(fractions):
    with pytest.raises(ConfigError, match="three positive numbers of sum 1"):
        time_split(*evenly(), fractions)


@pytest.mark.parametrize(
    "call",
    [
        lambda: walk_forward(*evenly(), folds=0),
        lambda: walk_forward(*evenly(), first_train=0.0),
        lambda: walk_forward(*evenly(), first_train=1.0),
        lambda: walk_forward(*evenly(), first_train=float("nan")),
        lambda: purged_folds(*evenly(), folds=1),
        lambda: purged_folds(*evenly(), embargo=-1),
    ],
)
def test_settings_out_of_range_are_refused(call):
    with pytest.raises(ConfigError):
        call()


@pytest.mark.parametrize("split", [time_split, walk_forward, purged_folds])
def test_trades_that_cannot_be_divided_are_refused(split):
    empty = np.array([], dtype=np.int64)
    with pytest.raises(DataError, match="too few different signal times"):
        split(empty, empty)
    same = np.full(50, 7, dtype=np.int64)
    with pytest.raises(DataError, match="too few different signal times"):
        split(same, same)
    signal, _ = evenly()
    with pytest.raises(DataError, match="0 of 100 trades"):
        split(signal, np.full(100, 10_000, dtype=np.int64))


@pytest.mark.parametrize("split", [time_split, walk_forward, purged_folds])
def test_wrong_times_are_refused_with_their_row(split):
    signal, exits = evenly()
    with pytest.raises(DataError, match="exit_time: got 'int64 of shape"):
        split(signal, exits[:-1])
    with pytest.raises(DataError, match="signal_time: got 'float64 of shape"):
        split(signal.astype(float), exits)
    early = exits.copy()
    early[[70, 90]] = 0
    with pytest.raises(
        DataError, match=r"trades row 70, column exit_time: got 0; .*signal at 700; 2 rows fail"
    ):
        split(signal, early)
