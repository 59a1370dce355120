"""A fold knows its training trades, and what each tested signal knew; nothing that came later."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tuning.folds
from envs.guardrails import Limits
from evaluation.backtest import run
from evaluation.walk_forward import Fold, bounds
from market.errors import DataError
from market.synthetic import regimes
from policies.hybrid import Network
from signals.late_entry import late_entry
from signals.outcomes import label, pool
from signals.rules import checked, rule
from signals.trades import Trades
from tuning.config import TrainConfig, parse
from tuning.folds import FoldFits, too_small, training_parts
from tuning.run_folder import RunFolder

CONFIG = parse({"algo": "plugin", "folds": 2})


class Nobody:
    def stage(self, name: str, note: str, *, resumed: bool) -> None:
        pass

    def progress(self, done: int, total: int, score: float) -> None:
        pass


@pytest.fixture(scope="module")
def trades() -> tuple[Trades, Trades]:
    bars = regimes(bars=3_000, seed=0)
    signals = checked(rule("donchian").generate(bars), bars)
    made = pool([label(bars, signals, CONFIG.costs)])
    return made, late_entry(made, pool([label(bars, signals, CONFIG.costs, delay=1)]))


def fold_0(trades: Trades, late: Trades, folder: Path, config: TrainConfig = CONFIG) -> tuple[Fold, Any]:
    fits = FoldFits(trades, late, config, RunFolder(folder), Nobody(), learns=False)
    rows = bounds(trades.signal_time, trades.exit_time, 5, least_train=125)
    return fits(0, *rows[0], seed=0), (fits, rows)


def test_what_comes_after_a_test_cannot_change_it(trades: tuple[Trades, Trades], tmp_path: Path) -> None:
    made, late = trades
    before, (_, rows) = fold_0(made, late, tmp_path / "one")
    later = np.arange(len(made)) > rows[0][1][-1]
    assert later.any()
    other = replace(
        made,
        gross_r=np.where(later, 9.0, made.gross_r),
        features=np.where(later[:, None], made.features[::-1], made.features),
    )
    after, _ = fold_0(other, late, tmp_path / "two")
    for name in ("market", "probability", "expected", "realised", "settled_kelly", "out_of_distribution"):
        assert np.array_equal(getattr(before.table, name), getattr(after.table, name), equal_nan=True), name
    assert before.table.k == after.table.k


def test_tested_outcomes_are_learned_from_nowhere(trades: tuple[Trades, Trades], tmp_path: Path) -> None:
    made, late = trades
    before, (_, rows) = fold_0(made, late, tmp_path / "one")
    tested = np.isin(np.arange(len(made)), rows[0][1])
    after, _ = fold_0(replace(made, gross_r=np.where(tested, 9.0, made.gross_r)), late, tmp_path / "two")
    assert np.array_equal(before.table.probability, after.table.probability)
    assert np.array_equal(before.table.expected, after.table.expected)
    assert before.table.k == after.table.k
    assert not np.array_equal(before.table.realised, after.table.realised)


def test_a_late_table_has_the_same_signals_and_other_outcomes(
    trades: tuple[Trades, Trades], tmp_path: Path
) -> None:
    fold, _ = fold_0(*trades, tmp_path)
    for name in ("time", "symbol", "probability", "volatility_ratio"):
        assert np.array_equal(getattr(fold.table, name), getattr(fold.late, name)), name
    assert not np.array_equal(fold.table.gross_r, fold.late.gross_r)


def test_what_is_finished_is_not_fitted_again_and_k_is_each_folds_own(
    trades: tuple[Trades, Trades], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, (fits, rows) = fold_0(*trades, tmp_path)
    second = fits(1, *rows[1], seed=0)
    assert second.table.k == fits.outcomes(1).k != first.table.k

    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(tuning.folds, "fit_outcomes", refuse)
    again, (fits, _) = fold_0(*trades, tmp_path)
    assert np.array_equal(again.table.expected, first.table.expected)
    assert np.array_equal(fits(1, *rows[1], seed=0).table.expected, second.table.expected)


def test_the_network_is_chosen_on_the_last_part_of_the_training_trades(trades: tuple[Trades, Trades]) -> None:
    made, _ = trades
    train = np.arange(100)
    fitted, select = training_parts(made, train, CONFIG, learns=True)
    assert made.exit_time[fitted].max() < made.signal_time[select].min()
    assert len(select) == pytest.approx(100 * 0.1 / 0.8, abs=2)
    assert set(fitted) | set(select) <= set(train)
    whole, none = training_parts(made, train, CONFIG, learns=False)
    assert np.array_equal(whole, train)
    assert len(none) == 0


def test_folds_with_too_few_trades_for_a_sizer_are_named(trades: tuple[Trades, Trades]) -> None:
    made, _ = trades
    rows = bounds(made.signal_time, made.exit_time, 5, least_train=125)
    small = too_small(made, rows, CONFIG)
    assert list(small) == [0, 1, 2, 3, 4]
    assert small[0] < small[4] < CONFIG.least_trades
    assert too_small(made, rows, parse({"least_trades": 50})) == {}


def test_too_few_trades_for_an_outcome_model_are_refused(
    trades: tuple[Trades, Trades], tmp_path: Path
) -> None:
    made, late = (part.take(slice(0, 90)) for part in trades)
    fits = FoldFits(made, late, CONFIG, RunFolder(tmp_path), Nobody(), learns=False)
    rows = bounds(made.signal_time, made.exit_time, 5)
    with pytest.raises(DataError, match="at least 100"):
        fits(0, *rows[0], seed=0)


def test_each_seed_trains_on_the_fold_once_and_is_chosen_on_its_select_part(
    trades: tuple[Trades, Trades], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tuning.sizer

    made, late = trades
    config = parse({"algo": "dqn", "folds": 2, "least_trades": 50})
    told: list[str] = []
    asked: list[tuple[int, int]] = []

    class Follower(Nobody):
        def stage(self, name: str, note: str, *, resumed: bool) -> None:
            told.append(f"{name} {note[:6]} {resumed}")

    def train_sizer(train: Any, select: Any, given: TrainConfig, folder: Path, progress: Any) -> Any:
        assert train.exit_time.max() < select.time.min()
        asked.append((given.seed, len(train)))
        weights = (np.zeros((6, 12), dtype=np.float32),)
        biases = (np.eye(6, dtype=np.float32)[given.seed],)
        ones = np.ones(12, dtype=np.float32)
        return Network(0 * ones, ones, weights, biases), [(1_000, 0.5)]

    monkeypatch.setattr(tuning.sizer, "train_sizer", train_sizer)
    rows = bounds(made.signal_time, made.exit_time, 5, least_train=125)
    for _ in range(2):
        fits = FoldFits(made, late, config, RunFolder(tmp_path), Follower(), learns=True)
        sizes = []
        for seed in (1, 3):
            fold = fits(0, *rows[0], seed=seed)
            assert fold.learned is not None
            path = run(fold.learned, fold.table, Limits(max_exposure=1.0, max_daily_risk=1.0), 28.0)
            sizes.append(set(path.multiplier.tolist()))
        assert sizes == [{0.25}, {1.0}]
    assert [seed for seed, _ in asked] == [1, 3]
    assert {count for _, count in asked} == {len(training_parts(made, rows[0][0], config, learns=True)[0])}
    assert told == ["fold 1 seed 1 False", "fold 1 seed 3 False", "fold 1 seed 1 True", "fold 1 seed 3 True"]
