from dataclasses import fields, replace

import numpy as np
import pytest

from market.errors import DataError
from market.splits import purged_folds
from policies.bundle import BundleError, open_bundle
from signals.calibration import calibration_report
from signals.outcome_bins import bin_edges, bins_of
from signals.outcome_model import OutcomeModel, _splits, cross_fitted
from tests.serving_bundles import bundle
from tests.synthetic_signals import table

HOUR = 3_600_000_000_000


def steps(x):
    """A chance of a win that steps up and down with momentum, and turns with trend strength."""
    return 0.5 + 0.25 * np.where(np.floor(2 * (x[:, 2] + 1)) % 2 == 0, 1, -1) * np.where(x[:, 0] > 0.6, 1, -1)


def planted(count: int, seed: int = 0, edge: float = 1.0, chance=None):
    """Trades whose p(win) is known: x, r, times of signal and exit, p; momentum turns with volatility, or
    what `chance` says of x."""
    random = np.random.default_rng(seed)
    x = np.stack(
        (
            random.random(count),
            random.random(count),
            random.uniform(-1, 1, count),
            random.random(count),
            random.uniform(-1, 1, count),
            random.uniform(-1, 1, count),
        ),
        axis=1,
    )
    reward = x[:, 5] + 2
    score = (x[:, 0] - 0.5) + 0.8 * (x[:, 3] - 0.5) - 3.0 * x[:, 2] * (x[:, 1] - 0.5)
    p = 1 / (1 + np.exp(np.log(reward) - edge * score)) if chance is None else chance(x)
    won = random.random(count) < p
    r = np.where(won, reward - 0.05, -1.05) + random.normal(0, 0.02, count)
    signal_time = np.cumsum(random.integers(1, 10, count)) * HOUR
    return x, r, signal_time, signal_time + random.integers(1, 60, count) * HOUR, p


@pytest.fixture(scope="module")
def market():
    return planted(3000)


@pytest.fixture(scope="module")
def model(market):
    return OutcomeModel.fit(*market[:4])


@pytest.fixture(scope="module")
def stepped():
    return OutcomeModel.fit(*planted(3000, seed=11, chance=steps)[:4])


def test_planted_skill_is_found_and_its_probabilities_are_calibrated(market, model):
    assert model.stage_skill[0] > 0.02
    assert model.log_loss_skill > 0.02
    assert model.shrink[0] > 0.5
    assert "skill found" in model.verdict
    x, r, _, _, p = planted(20_000, seed=1)
    stated = model.win_probability(x)
    assert np.corrcoef(stated, p)[0, 1] > 0.9
    report = calibration_report(stated, r > 0)
    assert report.log_loss < report.base_log_loss - 0.01
    assert report.expected_calibration_error < 0.03


def test_probabilities_add_up_and_expect_the_mean(market, model):
    x, r = market[:2]
    probability = model.probability(x)
    assert probability.shape == (len(x), len(model.outcome_r))
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=1e-12)
    assert (probability > 0).all()
    np.testing.assert_allclose(model.win_probability(x), probability[:, model.outcome_r > 0].sum(axis=1))
    bins = bins_of(r, model.edges)
    for number, mean in enumerate(model.outcome_r):
        assert mean == pytest.approx(r[bins == number].mean(), abs=1e-12)
    assert (probability @ model.outcome_r).mean() == pytest.approx(r.mean(), abs=0.02)


def test_a_market_without_skill_gets_its_base_rates():
    proven = 0
    for seed in range(8):
        x, r, signal_time, exit_time, _ = planted(500, seed=5 + seed)
        # The outcomes of other trades: nothing in x can tell them.
        r = np.random.default_rng(seed).permutation(r)
        model = OutcomeModel.fit(x, r, signal_time, exit_time)
        if model.shrink[0] > 0.0:
            proven += 1
            continue
        assert "no skill" in model.verdict
        stated = model.win_probability(x)
        assert np.ptp(stated) < 1e-12
        assert stated[0] == pytest.approx((r > 0).mean(), abs=0.01)
    # One in ten is what the rule allows by chance.
    assert proven <= 2


def test_the_stated_skill_is_met_on_trades_never_seen():
    stated, met = [], []
    for seed in range(4):
        model = OutcomeModel.fit(*planted(1500, seed=20 + seed)[:4])
        x, r, *_ = planted(8000, seed=40 + seed)
        bins = bins_of(r, model.edges)
        base = np.bincount(bins, minlength=len(model.outcome_r)) / len(bins)
        loss = -np.log(model.probability(x)[np.arange(len(bins)), bins]).mean()
        stated.append(model.log_loss_skill)
        met.append(1 - loss / -np.log(base[bins]).mean())
    assert np.mean(stated) == pytest.approx(np.mean(met), abs=0.03)


def test_a_model_travels_as_arrays_bit_for_bit(market, model, stepped):
    for one in (model, stepped):
        arrays = one.to_arrays()
        assert {values.dtype.kind for values in arrays.values()} <= {"f", "i"}
        back = OutcomeModel.from_arrays({name: values.copy() for name, values in arrays.items()})
        np.testing.assert_array_equal(back.probability(market[0]), one.probability(market[0]))
        assert (back.rows, back.log_loss_skill) == (one.rows, one.log_loss_skill)
        again = back.to_arrays()
        assert list(again) == list(arrays)
        for name, values in arrays.items():
            np.testing.assert_array_equal(again[name], values)
        assert [trees is None for trees in back.trees] == [trees is None for trees in one.trees]


@pytest.mark.parametrize("name", [field.name for field in fields(OutcomeModel) if field.name != "trees"])
def test_damaged_arrays_are_refused(model, name):
    arrays = model.to_arrays()
    with pytest.raises(DataError, match="arrays"):
        OutcomeModel.from_arrays({key: values for key, values in arrays.items() if key != name})
    for wrong in (np.full(arrays[name].shape, np.nan), np.concatenate((arrays[name], arrays[name]))):
        with pytest.raises(DataError):
            OutcomeModel.from_arrays(arrays | {name: wrong})


def test_trees_that_do_not_belong_to_their_question_are_refused(stepped):
    arrays = stepped.to_arrays()
    win_or_loss = {name for name in arrays if name.startswith("trees/0/")}
    assert win_or_loss
    moved = {name.replace("trees/0/", "trees/7/"): values for name, values in arrays.items()}
    pointing = arrays["trees/0/left"].copy()
    pointing[0] = 10**6
    for wrong in (
        {name: values for name, values in arrays.items() if name not in win_or_loss},
        {name: values for name, values in arrays.items() if name != "trees/0/value"},
        moved,
        arrays | {"trees/7/value": np.zeros(1)},
        arrays | {"trees/0/left": pointing},
        arrays | {"rounds": np.zeros(3, dtype=np.int64)},
        arrays | {"rounds": arrays["rounds"] + 1},
        arrays | {"rounds": arrays["rounds"] + 0.5},
        arrays | {"rounds": -arrays["rounds"]},
    ):
        with pytest.raises(DataError):
            OutcomeModel.from_arrays(wrong)


def test_trees_answer_a_market_of_steps_and_are_better_calibrated_there(stepped):
    assert stepped.kept[0] == "trees"
    assert "skill found by the trees" in stepped.verdict
    x, r, _, _, p = planted(20_000, seed=12, chance=steps)
    won = r > 0
    logit = replace(stepped, rounds=stepped.rounds * [0, 1, 1], trees=(None, *stepped.trees[1:]))
    kept, other = (calibration_report(one.win_probability(x), won) for one in (stepped, logit))
    assert kept.log_loss < other.log_loss - 0.02
    assert kept.brier < other.brier - 0.005
    assert kept.log_loss < kept.base_log_loss - 0.02
    # Few and slow trees err on the timid side: rather towards the base rate than beyond what happens.
    assert kept.expected_calibration_error < 0.1
    assert kept.happened[0] < kept.stated[0] < kept.base_rate < kept.stated[-1] < kept.happened[-1]
    assert np.corrcoef(stepped.win_probability(x), p)[0, 1] > 0.85


def test_every_answer_is_compared_and_the_comparison_is_told(model, stepped):
    for one, best in ((model, "logit"), (stepped, "trees")):
        assert one.kept[0] == best
        assert list(one.candidates) == ["base rates", "logit", "trees"]
        np.testing.assert_allclose(list(one.candidates.values()), one.candidate_loss.sum(axis=0))
        win_or_loss = dict(zip(one.candidates, one.candidate_loss[0], strict=True))
        assert min(win_or_loss, key=win_or_loss.get) == best
        for name in ("base rates", "logit", "trees"):
            assert f"{name} {one.candidates[name]:.4f}" in one.compared


def test_a_row_with_nan_stays_nan_where_trees_answer(stepped):
    assert np.isfinite(stepped.probability(np.zeros((1, 6)))).all()
    for column in range(6):
        rows = np.zeros((3, 6))
        rows[1, column] = np.nan
        stated = stepped.probability(rows)
        assert np.isnan(stated[1]).all()
        np.testing.assert_array_equal(stated[[0, 2]], stepped.probability(rows[[0, 2]]))


def test_a_bundle_carries_the_trees_and_asks_them_its_golden_questions(stepped, tmp_path):
    whole = replace(bundle(), outcome_model=stepped)
    whole = whole.with_golden(table(80), np.random.default_rng(0).uniform(-1.0, 1.0, (80, 6)))
    digest = whole.save(tmp_path)
    opened = open_bundle(tmp_path, digest)
    x = planted(500, seed=14)[0]
    np.testing.assert_array_equal(opened.outcome_model.probability(x), stepped.probability(x))
    assert opened.outcome_model.kept == stepped.kept
    # Trees that answer otherwise than was recorded are not served, even under a digest of their own.
    trees = stepped.trees[0]
    other = replace(stepped, trees=(replace(trees, value=trees.value * 1.01), *stepped.trees[1:]))
    altered = replace(whole, outcome_model=other).save(tmp_path)
    with pytest.raises(BundleError, match=r"golden\.probability"):
        open_bundle(tmp_path, altered)


def test_the_same_trades_give_the_same_model(market, model):
    again = OutcomeModel.fit(*market[:4])
    for name, values in model.to_arrays().items():
        np.testing.assert_array_equal(again.to_arrays()[name], values)


def test_a_cross_fitted_row_does_not_know_its_own_outcome():
    x, r, signal_time, exit_time, _ = planted(600, seed=3)
    before = cross_fitted(x, r, signal_time, exit_time)
    assert np.isfinite(before).all()
    train, test = purged_folds(signal_time, exit_time, 5)[2]
    changed = r.copy()
    # Exchange outcomes within the fold: the distribution, and so the bins, stay as they are.
    changed[test] = r[test][::-1]
    np.testing.assert_array_equal(bin_edges(changed), bin_edges(r))
    after = cross_fitted(x, changed, signal_time, exit_time)
    np.testing.assert_array_equal(after[test], before[test])
    assert not np.array_equal(after[train], before[train])


def test_a_cross_fitted_row_does_not_know_trades_that_overlap_its_block():
    x, r, signal_time, exit_time, _ = planted(600, seed=4)
    train, test = purged_folds(signal_time, exit_time, 5)[2]
    purged = np.setdiff1d(np.arange(600), np.concatenate((train, test)))
    assert len(purged) >= 4
    changed = r.copy()
    changed[purged] = r[purged][::-1]
    assert not np.array_equal(changed, r)
    before, after = (cross_fitted(x, outcome, signal_time, exit_time) for outcome in (r, changed))
    np.testing.assert_array_equal(after[test], before[test])


def test_cross_fitted_and_fitted_models_speak_of_the_same_bins(market, model):
    x, r, signal_time, exit_time, p = market
    probability = cross_fitted(x, r, signal_time, exit_time)
    assert probability.shape == (len(x), len(model.outcome_r))
    assert np.corrcoef(model.winning(probability), p)[0, 1] > 0.8
    report = calibration_report(model.winning(probability), r > 0)
    assert report.log_loss < report.base_log_loss


def test_fields_far_outside_the_training_trades_stay_tame(market, model):
    far = np.full((1, 6), 1e6)
    assert np.isfinite(model.probability(far)).all()
    near = np.where(market[0].mean(axis=0) < far, market[0].mean(axis=0) + 3 * market[0].std(axis=0), 0.0)
    np.testing.assert_allclose(model.probability(far), model.probability(near), rtol=1e-9)


def test_a_field_that_never_moved_in_training_has_no_say():
    x, r, signal_time, exit_time, _ = planted(1000, seed=6)
    x[:, 3] = 0.5
    model = OutcomeModel.fit(x, r, signal_time, exit_time)
    other = x.copy()
    other[:, 3] = 0.9
    np.testing.assert_array_equal(model.probability(other), model.probability(x))


def test_unusable_training_trades_are_refused(market):
    x, r, signal_time, exit_time, _ = (column[:150].copy() for column in market)
    with pytest.raises(DataError, match="at least 100"):
        OutcomeModel.fit(x[:99], r[:99], signal_time[:99], exit_time[:99])
    OutcomeModel.fit(x[:100], r[:100], signal_time[:100], exit_time[:100])
    with pytest.raises(DataError, match="shapes"):
        OutcomeModel.fit(x[:, :5], r, signal_time, exit_time)
    with pytest.raises(DataError, match="sort"):
        OutcomeModel.fit(x, r, signal_time[::-1].copy(), exit_time[::-1].copy())
    with pytest.raises(DataError, match="wins"):
        OutcomeModel.fit(x, -np.abs(r), signal_time, exit_time)
    for row, column in ((7, 2), (8, 0)):
        broken = x.copy()
        broken[row, column] = np.nan
        with pytest.raises(DataError, match=f"row {row}"):
            OutcomeModel.fit(broken, r, signal_time, exit_time)
    for function in (OutcomeModel.fit, cross_fitted):
        with pytest.raises(DataError, match="row 9"):
            function(x, np.where(np.arange(150) == 9, np.inf, r), signal_time, exit_time)


def test_fields_of_another_shape_are_refused_and_nan_stays_nan(model):
    with pytest.raises(DataError):
        model.probability(np.zeros((3, 5)))
    with pytest.raises(DataError):
        model.probability(np.zeros(6))
    rows = np.zeros((2, 6))
    rows[1, 4] = np.nan
    stated = model.probability(rows)
    assert np.isfinite(stated[0]).all()
    assert np.isnan(stated[1]).all()


def test_what_follows_a_tested_block_closely_is_not_learned_from():
    _, _, signal, exits, _ = planted(400)
    hundredth = 0.01 * (signal[-1] - signal[0])
    for train, test in _splits(signal, exits, 5):
        after = signal[train][signal[train] > signal[test].max()]
        assert len(after) == 0 or after.min() - exits[test].max() > hundredth - 1
