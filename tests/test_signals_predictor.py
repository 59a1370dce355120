import json
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from features.pipeline import FeaturePipeline
from features.scaling import Normaliser
from features.spec import FEATURE_NAMES, WARMUP
from market.bars import Bars
from market.errors import ConfigError, DataError
from signals import predictor as module
from signals.outcome_logit import SHRINKAGES, log_softmax
from signals.predictor import GOLDEN_ROWS, PricePredictor
from signals.predictor_report import Scores
from signals.price_models import FARTHEST, Candidate, candidates, learn
from signals.price_rows import Rows, labelled, log_base_rates, own_base_rates
from tests.jumpy_bars import HOUR, START, jumpy_bars

FEATURES = len(FEATURE_NAMES)


def bars_from(returns, *, symbol: str = "MADE", step: int = HOUR) -> Bars:
    """Bars whose closes follow log returns; each opens at the close before."""
    close = 100.0 * np.exp(np.cumsum(returns))
    opened = np.concatenate(([100.0], close[:-1]))
    time = START + np.arange(len(close), dtype=np.int64) * step
    high, low = np.maximum(opened, close) * 1.001, np.minimum(opened, close) * 0.999
    return Bars.from_arrays(symbol, time, opened, high, low, close, np.ones(len(close)))


def noise(count: int, seed: int, symbol: str = "MADE") -> Bars:
    return bars_from(np.random.default_rng(seed).normal(0, 0.01, count), symbol=symbol)


def trending(count: int, seed: int, symbol: str = "MADE") -> Bars:
    """Each return leans on the one before."""
    random = np.random.default_rng(seed)
    returns = np.zeros(count)
    for row in range(1, count):
        returns[row] = 0.45 * returns[row - 1] + random.normal(0, 0.01)
    return bars_from(returns, symbol=symbol)


def simulated(count: int, seed: int = 0, *, strength: float = 1.0, since: int = 0) -> Rows:
    """Rows whose class leans on feature 3 from row `since` on; labels are known three hours after the row."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, FEATURES))
    score = strength * x[:, 3] * (np.arange(count) >= since)
    logits = np.stack((-score, np.zeros(count), score), axis=1)
    y = np.argmax(logits + random.gumbel(size=(count, 3)), axis=1)
    known = START + np.arange(count, dtype=np.int64) * HOUR
    return Rows(x, y, np.zeros(count, dtype=np.int64), known, known + 3 * HOUR, ("MADE",), (0.0,))


@pytest.fixture(scope="module")
def skilled():
    return PricePredictor.fit(trending(2500, seed=1), horizon=1, epochs=4)


# --- the candidates ---


def test_the_logit_answers_as_scikit_learns():
    rows = simulated(900)
    (model,) = learn(rows.x, rows.y, [Candidate("logit", 0.01)], seed=0)
    z = np.clip(Normaliser.fit(rows.x).apply(rows.x), -FARTHEST, FARTHEST)
    theirs = LogisticRegression(C=0.01, solver="newton-cholesky").fit(z, rows.y).predict_proba(z)
    np.testing.assert_allclose(np.exp(log_softmax(model.scores(rows.x))), theirs, atol=1e-9)


def test_the_perceptron_answers_as_torch_and_leaves_torch_as_it_was():
    import torch

    rows = simulated(600)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    early, late = learn(rows.x, rows.y, [Candidate("mlp", 1), Candidate("mlp", 3)], seed=5)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    again = learn(rows.x, rows.y, [Candidate("mlp", 1)], seed=5)[0]
    np.testing.assert_array_equal(early.scores(rows.x), again.scores(rows.x))
    assert not np.array_equal(early.scores(rows.x), late.scores(rows.x))
    other = learn(rows.x, rows.y, [Candidate("mlp", 1)], seed=6)[0]
    assert not np.array_equal(early.scores(rows.x), other.scores(rows.x))
    arrays = late.to_arrays()
    hidden = torch.nn.Linear(FEATURES, arrays["hidden_bias"].size, dtype=torch.float64)
    out = torch.nn.Linear(arrays["hidden_bias"].size, 3, dtype=torch.float64)
    with torch.no_grad():
        for layer, weight, bias in (
            (hidden, "hidden_weight", "hidden_bias"),
            (out, "weight", "bias"),
        ):
            layer.weight.copy_(torch.from_numpy(arrays[weight].T.copy()))
            layer.bias.copy_(torch.from_numpy(arrays[bias]))
        z = torch.from_numpy(np.clip((rows.x - arrays["mean"]) / arrays["scale"], -FARTHEST, FARTHEST))
        theirs = torch.nn.Sequential(hidden, torch.nn.Tanh(), out)(z).numpy()
    np.testing.assert_allclose(late.scores(rows.x), theirs, rtol=1e-12, atol=1e-12)


def test_each_candidate_finds_what_is_planted():
    rows, fresh = simulated(1500), simulated(3000, seed=1)
    wanted = candidates(16)
    assert {candidate.kind for candidate in wanted} == {"logit", "trees", "mlp"}
    assert not [candidate for candidate in candidates(0) if candidate.kind == "mlp"]
    base = -log_base_rates(rows.y, 3)[fresh.y].mean()
    models = learn(rows.x, rows.y, wanted, seed=0)
    losses = [-log_softmax(model.scores(fresh.x))[np.arange(3000), fresh.y].mean() for model in models]
    for kind in ("logit", "trees", "mlp"):
        best = min(loss for loss, candidate in zip(losses, wanted, strict=True) if candidate.kind == kind)
        assert best < base - 0.08, kind


# --- labels and base rates ---


def test_rows_carry_the_pipelines_labels_and_the_moments_they_are_known():
    slow = bars_from(np.random.default_rng(3).normal(0, 0.03, 900), symbol="SLOW", step=24 * HOUR)
    fast = noise(900, seed=4, symbol="FAST")
    rows = labelled([slow, fast], 7, 0.01)
    assert len(rows.y) == 2 * (900 - WARMUP + 1 - 7)
    assert (np.diff(rows.known) >= 0).all()
    for number, (bars, step) in enumerate(((slow, 24 * HOUR), (fast, HOUR))):
        own = rows.market == number
        table, label = FeaturePipeline().prepare_training_data(bars, 7, 0.01)
        np.testing.assert_array_equal(rows.x[own], table.to_numpy())
        np.testing.assert_array_equal(rows.y[own], label.to_numpy())
        # Known at the close of the bar, settled at the close of the bar seven later.
        np.testing.assert_array_equal(rows.known[own], bars.time[WARMUP - 1 : -7] + step)
        np.testing.assert_array_equal(rows.settled[own], rows.known[own] + 7 * step)


def test_a_markets_own_threshold_comes_from_its_first_bars_only():
    bars = noise(2000, seed=5)
    (own,) = labelled([bars], 5, None).thresholds
    # The threshold parts the first 30 % of bars in three, whatever comes later.
    returns = np.log(bars.close[5:600] / bars.close[:595])
    assert np.mean(np.abs(returns) <= own) == pytest.approx(1 / 3, abs=0.01)
    wild = np.diff(np.log(bars.close), prepend=np.log(100.0))
    wild[600:] *= 5
    assert labelled([bars_from(wild)], 5, None).thresholds[0] == pytest.approx(own, rel=1e-9)


def test_the_yardstick_is_the_own_markets_base_rate_as_known_in_training():
    rows = simulated(1000)._replace(
        market=np.repeat([0, 1], [400, 600]).astype(np.int64),
        symbols=("A", "B"),
        y=np.repeat([0, 2], [400, 600]),
    )
    train, test = np.arange(0, 700), np.arange(700, 1000)
    np.testing.assert_array_equal(
        own_base_rates(rows, train, test, 3), np.tile(log_base_rates(rows.y[400:700], 3), (300, 1))
    )
    few = own_base_rates(rows, np.arange(0, 450), test, 3)
    np.testing.assert_array_equal(few, np.tile(log_base_rates(rows.y[:450], 3), (300, 1)))


# --- walk-forward ---


def stated(rows: Rows, wanted) -> module.OutOfFold:
    losses, splits = module._losses(rows, wanted, 0, 5)
    return module._stated(rows, wanted, losses, splits)


def test_nothing_that_is_stated_depends_on_what_comes_later():
    wanted = (Candidate("logit", 0.01), Candidate("trees", 5), Candidate("mlp", 1))
    rows = simulated(1500, strength=0.7)
    before = stated(rows, wanted)
    cut = 1000
    random = np.random.default_rng(3)
    # Rows from the cut on become other rows; so do labels that were not settled when row `cut` was stated.
    x, y = rows.x.copy(), rows.y.copy()
    x[cut:] = random.normal(5.0, 3.0, size=x[cut:].shape)
    y[cut:] = 0
    after = stated(rows._replace(x=x, y=y), wanted)
    same = before.row < cut
    np.testing.assert_array_equal(after.p[same], before.p[same])
    np.testing.assert_array_equal(after.base[same], before.base[same])
    assert not np.array_equal(after.p[~same], before.p[~same])


def test_labels_not_yet_settled_when_a_fold_begins_play_no_part_in_it():
    wanted = (Candidate("logit", 0.01), Candidate("trees", 5))
    rows = simulated(1500, strength=0.7)
    before = stated(rows, wanted)
    for fold in np.unique(before.fold):
        own = before.fold == fold
        first = int(before.row[own].min())
        y = rows.y.copy()
        unsettled = np.arange(first - 3, first)
        assert (rows.settled[unsettled] >= rows.known[first]).all()
        y[unsettled] = (y[unsettled] + 1) % 3
        np.testing.assert_array_equal(stated(rows._replace(y=y), wanted).p[own], before.p[own])
        # The row before those was settled: the test can tell.
        y = rows.y.copy()
        y[first - 60 : first - 4] = (y[first - 60 : first - 4] + 1) % 3
        assert not np.array_equal(stated(rows._replace(y=y), wanted).p[own], before.p[own])


def test_skill_planted_only_in_the_future_is_not_claimed_for_the_past():
    rows = simulated(3000, strength=1.5, since=1600)
    seen = stated(rows, (Candidate("logit", 0.01), Candidate("trees", 15)))
    at = (np.arange(len(seen.row)), rows.y[seen.row])
    gain = np.log(seen.p[at]) - seen.base[at]
    past, future = seen.row < 1600, seen.row >= 2650
    assert gain[past].mean() < 0.005
    assert gain[future].mean() > 0.1


def test_shrinking_is_chosen_so_that_boasting_is_taken_back():
    rows = simulated(1500, strength=0.4)
    wanted = (Candidate("trees", 60),)
    seen = stated(rows, wanted)
    losses, splits = module._losses(rows, wanted, 0, 5)
    boast = np.concatenate([part.loss[0, -1] for part in losses[1:]]).mean()
    at = (np.arange(len(seen.row)), rows.y[seen.row])
    assert SHRINKAGES[-1] == 1.0
    assert -np.log(seen.p[at]).mean() < boast
    np.testing.assert_allclose(seen.p.sum(axis=1), 1.0, atol=1e-12)
    assert [len(test) for _, test in splits[1:]] == [int(np.sum(seen.fold == f)) for f in range(1, 6)]


# --- the whole ---


def test_a_planted_trend_is_found_and_stated_with_calibrated_chances(skilled):
    predictor, report = skilled
    assert predictor.shrink > 0.5
    scores = report.all_markets
    assert scores.log_loss < scores.base_log_loss - 0.02
    assert scores.direction_log_loss < scores.direction_base_log_loss - 0.02
    assert report.brier < report.base_brier
    assert report.expected_calibration_error < 0.06
    assert report.gain > 2 * report.gain_error > 0
    fresh = trending(4000, seed=2)
    _, label = FeaturePipeline().prepare_training_data(fresh, 1, report.thresholds["MADE"])
    y = label.to_numpy()
    p = predictor.predict(fresh)[WARMUP - 1 : -1]
    base = np.tile(np.exp(log_base_rates(y, 3)), (len(y), 1))
    assert Scores.of(p, base, y).log_loss < Scores.of(p, base, y).base_log_loss - 0.02


def test_noise_gets_its_base_rates_even_where_hindsight_finds_something():
    hindsight = 0
    for seed in (100, 103, 105):
        bars = noise(1300, seed=seed)
        predictor, report = PricePredictor.fit(bars, horizon=3, epochs=0)
        hindsight += any(candidate.shrink > 0 for candidate in report.candidates)
        assert predictor.shrink == 0
        assert "no proven skill" in report.verdict
        assert report.all_markets.log_loss > report.all_markets.base_log_loss - 0.02
        p = predictor.predict(bars)[WARMUP - 1 :]
        np.testing.assert_array_equal(p, np.tile(p[0], (len(p), 1)))
        y = labelled([bars], 3, None).y
        np.testing.assert_allclose(p[0], np.bincount(y, minlength=3) / len(y), atol=1e-3)
    assert hindsight >= 2, "the proof that is asked for has work to do"


def test_the_report_is_json_with_every_market_and_class():
    markets = [trending(1300, seed=1, symbol="ONE"), noise(1300, seed=2, symbol="TWO")]
    _, report = PricePredictor.fit(markets, horizon=1, epochs=1, folds=3)
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert set(plain["markets"]) == set(plain["thresholds"]) == {"ONE", "TWO"}
    assert set(plain["reliability"]) == {"down", "flat", "up"}
    assert [candidate["kind"] for candidate in plain["candidates"]] == ["logit", "trees", "mlp"]
    assert plain["all_markets"]["rows"] == sum(part["rows"] for part in plain["markets"].values())
    assert sum(plain["reliability"]["up"]["group"]) == plain["all_markets"]["rows"]
    assert plain["markets"]["ONE"]["log_loss"] < plain["markets"]["ONE"]["base_log_loss"]


def test_direction_is_judged_apart_from_telling_quiet_from_lively():
    y = np.array([0, 2, 1, 2])
    p = np.array([[0.2, 0.4, 0.4], [0.1, 0.6, 0.3], [0.3, 0.4, 0.3], [0.5, 0.0, 0.5]])
    base = np.tile([0.25, 0.5, 0.25], (4, 1))
    scores = Scores.of(p, base, y)
    assert scores.direction_rows == 3
    expected = -(math.log(1 / 3) + math.log(3 / 4) + math.log(1 / 2)) / 3
    assert scores.direction_log_loss == pytest.approx(expected)
    assert scores.direction_base_log_loss == pytest.approx(math.log(2))
    assert scores.log_loss == pytest.approx(-np.log([0.2, 0.3, 0.4, 0.5]).mean())


def test_predictions_are_aligned_with_the_rows_and_blind_to_the_future(skilled):
    predictor, _ = skilled
    bars = trending(400, seed=7)
    whole = predictor.predict(bars)
    assert whole.shape == (400, 3)
    assert np.isnan(whole[: WARMUP - 1]).all()
    assert np.isfinite(whole[WARMUP - 1 :]).all()
    np.testing.assert_array_equal(predictor.predict(bars.frame()), whole)
    np.testing.assert_allclose(predictor.predict(bars.window(0, 250)), whole[:250], rtol=0, atol=1e-14)
    assert np.isnan(predictor.predict(bars.window(0, 50))).all()
    matrix = FeaturePipeline().matrix(bars)
    for row in (WARMUP - 1, 200, 399):
        np.testing.assert_allclose(predictor.predict_row(matrix[row]), whole[row], rtol=0, atol=1e-14)
    both = predictor.predict([bars, trending(300, seed=8, symbol="OTHER")])
    np.testing.assert_array_equal(both[:400], whole)
    assert len(both) == 700


def test_the_same_seed_gives_the_same_predictor():
    bars = trending(1150, seed=3)
    one, two = (PricePredictor.fit(bars, horizon=2, epochs=1, seed=4, folds=2) for _ in range(2))
    assert one[1].to_dict() == two[1].to_dict()
    for name, values in one[0].to_arrays().items():
        np.testing.assert_array_equal(two[0].to_arrays()[name], values)


@pytest.mark.parametrize("wanted", [Candidate("logit", 0.01), Candidate("trees", 15), Candidate("mlp", 2)])
def test_every_kind_travels_as_numeric_arrays_and_answers_its_golden_rows(wanted, tmp_path):
    rows = simulated(900)
    (model,) = learn(rows.x, rows.y, [wanted], seed=0)
    predictor = PricePredictor(wanted.kind, model, log_base_rates(rows.y, 3), 0.7)
    golden = predictor.golden(np.concatenate((np.full((5, FEATURES), np.nan), rows.x)))
    assert golden["rows"].shape == (GOLDEN_ROWS, FEATURES)
    np.savez(tmp_path / "p.npz", allow_pickle=False, **predictor.to_arrays())
    with np.load(tmp_path / "p.npz", allow_pickle=False) as file:
        back = PricePredictor.from_arrays(dict(file))
    assert back.kind == wanted.kind
    np.testing.assert_array_equal(back.probability(rows.x), predictor.probability(rows.x))
    back.check_golden(golden)
    with pytest.raises(DataError, match="golden"):
        PricePredictor(wanted.kind, model, log_base_rates(rows.y, 3), 0.65).check_golden(golden)


def test_arrays_that_are_no_predictor_are_refused(skilled):
    arrays = skilled[0].to_arrays()
    model = next(name for name in arrays if name.startswith("model/"))
    for wrong in (
        {},
        {**arrays, "kind": np.array([7])},
        {**arrays, "kind": np.array([0.5])},
        {**arrays, "shrink": np.array([1.5])},
        {**arrays, "shrink": np.array([np.nan])},
        {**arrays, "base": np.zeros(2)},
        {**arrays, "base": np.array(["a", "b", "c"])},
        {**arrays, "more": np.zeros(1)},
        {**arrays, model: np.full_like(arrays[model], np.nan, dtype=float)},
        {name: values for name, values in arrays.items() if name != model},
    ):
        with pytest.raises(DataError):
            PricePredictor.from_arrays(wrong)


def test_a_row_that_cannot_be_answered_names_its_feature(skilled):
    predictor, _ = skilled
    for value in (math.nan, math.inf):
        row = np.zeros(FEATURES)
        row[4] = value
        with pytest.raises(DataError, match=rf"feature {FEATURE_NAMES[4]}: got {value}; give a finite"):
            predictor.predict_row(row)
    with pytest.raises(DataError, match="features shape"):
        predictor.predict_row(np.zeros(30))
    with pytest.raises(DataError, match="features shape"):
        predictor.probability(np.zeros(31))
    rows = np.zeros((3, FEATURES))
    rows[1, 2] = -math.inf
    with pytest.raises(DataError, match=f"row 1, feature {FEATURE_NAMES[2]}"):
        predictor.probability(rows)


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        ({"epochs": -1}, ConfigError, "epochs"),
        ({"epochs": 1.5}, ConfigError, "epochs"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"folds": 1}, ConfigError, "folds"),
        ({"horizon": 0}, ConfigError, "horizon"),
        ({"threshold": math.nan}, ConfigError, "threshold"),
        ({"threshold": 5.0}, DataError, "training rows by class"),
        ({"markets": []}, DataError, "markets"),
        ({"markets": [jumpy_bars(1500), jumpy_bars(1500)]}, DataError, "markets"),
        ({"markets": jumpy_bars(600)}, DataError, "training rows"),
        ({"markets": jumpy_bars(90)}, DataError, "JUMPY rows"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(change, error, field):
    with pytest.raises(error, match=rf"^{field}: got "):
        PricePredictor.fit(**{"markets": jumpy_bars(1500), "epochs": 0} | change)
