"""Walk-forward: later signals judge what earlier trades taught, one account throughout, every seed."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from envs.guardrails import Limits
from envs.rewards import utility
from envs.signal_table import SignalTable
from evaluation.backtest import run
from evaluation.walk_forward import SAME_EXPOSURE, Fold, bounds, median_of, walk_forward
from market.errors import ConfigError, DataError
from policies.baselines import FixedSize, PlugIn
from tests.synthetic_signals import table

SIGNALS = table(400)
SEEDS = (3, 4, 5)


@dataclass
class Fits:
    """Learns the size that its seed and fold say; keeps what it was asked."""

    learns: bool = True
    fails_in: int | None = None
    asked: list[tuple[int, int]] = field(default_factory=list)
    tables: dict[int, SignalTable] = field(default_factory=dict)

    def __call__(self, number: int, train: np.ndarray, test: np.ndarray, seed: int) -> Fold:
        self.asked.append((number, seed))
        assert SIGNALS.exit_time[train].max() < SIGNALS.time[test].min()
        tested = SIGNALS.take(test)
        late = replace(tested, gross_r=tested.gross_r - 0.1)
        size = (0.25, 0.5, 1.0)[seed - SEEDS[0]] if number % 2 else 1.5
        learned = FixedSize(size, "RL sizer") if self.learns and number != self.fails_in else None
        return Fold(tested, late, (FixedSize(1.0, "rule 1x"), PlugIn()), learned)


def rows(folds: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    return bounds(SIGNALS.time, SIGNALS.exit_time, folds)


def test_folds_follow_one_another_and_training_grows() -> None:
    cut = rows()
    tested = np.concatenate([test for _, test in cut])
    assert np.array_equal(tested, np.arange(tested[0], len(SIGNALS)))
    assert [len(train) for train, _ in cut] == sorted(len(train) for train, _ in cut)
    assert len(cut[0][0]) >= 0.35 * len(SIGNALS)


def test_fewer_than_five_folds_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 5"):
        rows(4)


def test_the_first_fold_learns_from_as_many_as_are_asked_for() -> None:
    cut = bounds(SIGNALS.time, SIGNALS.exit_time, 5, least_train=300)
    assert cut[0][1][0] == 300
    with pytest.raises(DataError, match="too few"):
        bounds(SIGNALS.time[:50], SIGNALS.exit_time[:50], 5, least_train=300)


def test_a_baseline_walks_all_folds_in_one_unbroken_account() -> None:
    cut, fits = rows(), Fits()
    tested = walk_forward(cut, fits, Limits(), 28.0, SEEDS)
    whole = SIGNALS.take(np.concatenate([test for _, test in cut]))
    unbroken = run(PlugIn(), whole, Limits(), 28.0)
    path = next(one for one in tested.baselines if one.name == unbroken.name)
    for name in ("multiplier", "utility", "expected", "net_r", "time", "equity", "exposure"):
        assert np.array_equal(getattr(path, name), getattr(unbroken, name)), name


def test_each_seed_has_a_path_and_each_fold_its_own_policy() -> None:
    fits = Fits()
    loose = Limits(max_exposure=1.0, max_daily_risk=1.0, max_position=1.0, max_drawdown=0.9)
    tested = walk_forward(rows(), fits, loose, 28.0, SEEDS)
    assert fits.asked == [(number, seed) for number in range(5) for seed in SEEDS]
    assert tested.seeds == SEEDS
    strange = tested.table.out_of_distribution
    for seed, path in zip((0.25, 0.5, 1.0), tested.learned, strict=True):
        known = ~strange
        odd = tested.fold % 2 == 1
        assert np.all(path.multiplier[known & odd] == seed)
        assert np.all(path.multiplier[known & ~odd] == 1.5)


def test_the_median_seed_stands_for_the_learned_sizer() -> None:
    tested = walk_forward(rows(), Fits(), Limits(), 28.0, SEEDS)
    means = [np.mean(path.utility) for path in tested.learned]
    assert np.mean(tested.paths[0].utility) == sorted(means)[1]
    assert tested.paths[0].name == "RL sizer"
    assert median_of(tested.learned[:2]) == int(np.argmin(means[:2]))


def test_random_sizes_have_the_mix_of_the_median_seed() -> None:
    loose = Limits(max_exposure=1.0, max_daily_risk=1.0, max_position=1.0, max_drawdown=0.9)
    tested = walk_forward(rows(), Fits(), loose, 28.0, SEEDS)
    random = next(path for path in tested.baselines if path.name == SAME_EXPOSURE)
    learned = tested.paths[0].multiplier
    assert set(random.multiplier) <= set(learned)
    assert np.mean(random.multiplier) == pytest.approx(np.mean(learned), abs=0.1)
    assert not np.array_equal(random.multiplier, learned)


def test_late_entries_are_walked_by_the_same_policies() -> None:
    tested = walk_forward(rows(), Fits(), Limits(), 28.0, SEEDS)
    late = {path.name: path for path in tested.late_paths}
    assert set(late) == {"RL sizer", "rule 1x", "meta-label plug-in"}
    assert np.mean(late["rule 1x"].utility) < np.mean(tested.baselines[0].utility)


@pytest.mark.parametrize(("fits", "asked"), [(Fits(learns=False), 5), (Fits(fails_in=2), 3 + 3 + 1 + 3 + 3)])
def test_a_sizer_that_lacks_a_fold_is_left_out_of_all(fits: Fits, asked: int) -> None:
    tested = walk_forward(rows(), fits, Limits(), 28.0, SEEDS)
    assert len(fits.asked) == asked
    assert (tested.learned, tested.seeds) == ((), ())
    assert [path.name for path in tested.paths] == ["rule 1x", "meta-label plug-in"]


class Drifting(Fits):
    """Each fold is one more averse to risk than the one before."""

    def __call__(self, number: int, train: np.ndarray, test: np.ndarray, seed: int) -> Fold:
        made = super().__call__(number, train, test, seed)
        k = 8.0 + number
        return replace(made, table=replace(made.table, k=k), late=replace(made.late, k=k))


def test_each_fold_counts_in_its_own_risk_aversion() -> None:
    tested = walk_forward(rows(), Drifting(), Limits(), 28.0, SEEDS)
    path, table = tested.baselines[0], tested.table
    assert np.array_equal(table.k, 8.0 + tested.fold)
    r = path.net_r / np.maximum(path.multiplier, 1e-9)
    assert path.utility == pytest.approx(utility(path.multiplier, r, 8.0 + tested.fold, 0.01))
    last = tested.fold == 4
    alone = table.take(np.flatnonzero(last)).utility_of(path.multiplier[last], slice(None), realised=False)
    assert path.expected[last] == pytest.approx(alone, abs=1e-12)


def test_folds_of_another_base_risk_are_refused() -> None:
    class Riskier(Fits):
        def __call__(self, number: int, train: np.ndarray, test: np.ndarray, seed: int) -> Fold:
            made = super().__call__(number, train, test, seed)
            return replace(made, table=replace(made.table, base_risk=0.01 * (1 + number)))

    with pytest.raises(DataError, match="base_risk"):
        walk_forward(rows(), Riskier(), Limits(), 28.0, SEEDS)


def test_tables_with_other_outcome_bins_are_joined_with_impossible_ones() -> None:
    bins = np.array([-1.0, 2.0])
    probability = SIGNALS.probability[:, :2] / SIGNALS.probability[:, :2].sum(axis=1, keepdims=True)
    two = replace(SIGNALS, probability=probability, outcome_r=bins)
    joined = SignalTable.joined([SIGNALS, two])
    assert len(joined) == 800
    sizes = np.full(800, 0.5)
    expected = joined.utility_of(sizes, slice(None), realised=False)
    assert expected[:400] == pytest.approx(SIGNALS.expected[:, 2], abs=1e-12)
    assert expected[400:] == pytest.approx(
        two.utility_of(sizes[:400], slice(None), realised=False), abs=1e-12
    )
